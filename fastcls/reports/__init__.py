"""Pages: the report of a run (`build`), of a comparison, a search and a check, and what they have in common."""
