"use strict";
(() => {
  const root = document.documentElement;
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const store = (value) => {
    try {
      if (value !== undefined) localStorage.setItem("fastcls-theme", value);
      return localStorage.getItem("fastcls-theme");
    } catch { return null; } // storage is closed to files in some browsers
  };
  root.classList.add("js");
  const saved = store();
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  const theme = () => root.dataset.theme || (dark.matches ? "dark" : "light");

  const setUpTheme = () => {
    const button = document.querySelector("#theme");
    const show = () => {
      const next = theme() === "dark" ? "light" : "dark";
      button.setAttribute("aria-label", `Switch to the ${next} theme`);
      button.querySelector("span").textContent = next === "dark" ? "Dark" : "Light";
    };
    button.addEventListener("click", () => {
      root.dataset.theme = theme() === "dark" ? "light" : "dark";
      store(root.dataset.theme);
      show();
    });
    dark.addEventListener("change", show);
    show();
  };

  const setUpCopy = (button) => {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(source);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  };

  const setUpSort = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        const sign = falling ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const numeric = head.dataset.type === "number";
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows].map((row) => [key(row), row]);
        rows.sort(([a], [b]) => {
          if (a === "" || b === "") return (a === "") - (b === ""); // no value: last, both ways
          return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
        });
        table.tBodies[0].append(...rows.map(([, row]) => row));
      });
    });
  };

  const setUpFilter = (input) => {
    const rows = [...document.getElementById(input.dataset.filter).tBodies[0].rows];
    const answer = document.getElementById(input.dataset.answer);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.cells[0].textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      answer.textContent = words.length ? `${shown} of ${rows.length} classes` : "";
    });
  };

  const setUpGallery = () => {
    const gallery = document.getElementById("gallery");
    if (!gallery) return;
    const items = [...gallery.children];
    const [kind, one, chip, count] = ["kind", "class", "pair", "count"].map((name) => document.getElementById(`gallery-${name}`));
    const heat = document.getElementById("heat");
    let pair = null;
    const classes = (text) => text.split("\n").filter(Boolean);  // of a label or a prediction: one, or several
    const names = new Set(items.flatMap((item) => [...classes(item.dataset.label), ...classes(item.dataset.prediction)]));
    one.append(...[...names].sort((a, b) => a.localeCompare(b, undefined, { numeric: true })).map((name) => new Option(name, name)));
    const inPair = (item, [label, prediction]) => {
      const [own, said] = [classes(item.dataset.label), classes(item.dataset.prediction)];
      const mistaken = label === prediction || !(own.includes(prediction) || said.includes(label));
      return own.includes(label) && said.includes(prediction) && mistaken;
    };
    const show = () => {
      let shown = 0;
      for (const item of items) {
        const { label, prediction, kinds } = item.dataset;
        const ofClass = !one.value || classes(label).includes(one.value) || classes(prediction).includes(one.value);
        item.hidden = pair ? !inPair(item, pair) : !(ofClass && kinds.split(" ").includes(kind.value));
        shown += !item.hidden;
      }
      chip.hidden = !pair;
      if (pair) chip.textContent = pair[0] === pair[1] ? `right: ${pair[0]} ×` : `${pair[0]} misclassified as ${pair[1]} ×`;
      const of = pair && shown < pair[2] ? ` of ${pair[2]}` : "";
      count.textContent = `${shown}${of} ${shown === 1 && !of ? "picture" : "pictures"}`;
    };
    const leave = () => { pair = null; show(); };
    kind.addEventListener("change", leave);
    one.addEventListener("change", leave);
    chip.addEventListener("click", () => { leave(); kind.focus(); });
    heat.addEventListener("change", () => root.classList.toggle("heated", heat.checked));
    for (const cell of document.querySelectorAll(".cell[data-label]")) {
      const own = [cell.dataset.label, cell.dataset.prediction, Number(cell.dataset.count)];
      if (!items.some((item) => inPair(item, own))) continue;
      cell.setAttribute("role", "button");
      cell.setAttribute("tabindex", "0");
      const open = () => {
        pair = own;
        show();
        document.getElementById("losses").scrollIntoView();
        chip.focus({ preventScroll: true });
      };
      cell.addEventListener("click", open);
      cell.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        open();
      });
    }
    show();
  };

  const setUpContents = () => {
    const links = new Map([...document.querySelectorAll("nav a")].map((a) => [a.hash.slice(1), a]));
    const seen = new Set();
    const watch = new IntersectionObserver((entries) => {
      for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.id);
      const first = [...links.keys()].find((id) => seen.has(id));
      for (const [id, link] of links) {
        if (id === first) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      }
    }, { rootMargin: "-10% 0px -55% 0px" });
    for (const id of links.keys()) watch.observe(document.getElementById(id));
  };

  document.addEventListener("DOMContentLoaded", () => {
    setUpTheme();
    document.querySelectorAll("[data-copy]").forEach(setUpCopy);
    document.querySelectorAll("table.sortable").forEach(setUpSort);
    document.querySelectorAll("[data-filter]").forEach(setUpFilter);
    setUpGallery();
    setUpContents();
  });
})();
