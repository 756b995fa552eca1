"""The machine: devices, memory, clock, terminal, signals, optional packages, processes that train together."""
