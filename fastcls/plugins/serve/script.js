
(() => {
  const element = (name) => document.getElementById(name);
  const grouped = (n) => n.toLocaleString("en");
  const words = (text, thing, n) => text.replace("#", `${grouped(n)} ${thing}${n === 1 ? "" : "s"}`);

  const setUp = () => {
    const [drop, input, list, status, heat, clear] = ["drop", "files", "answers", "status", "heat", "clear"].map(element);
    const [threshold, shown, coverage] = ["threshold", "threshold-value", "coverage"].map(element);
    const most = { bytes: Number(drop.dataset.bytes), files: Number(drop.dataset.files) };
    const answered = JSON.parse(coverage.dataset.coverage); // images answered and rightly so, at 0, 1, … 100 %
    const waiting = [];
    let generation = 0; // of the pictures on the page: those before "Clear" are no longer shown
    let busy = false, done = 0, refused = 0, left = 0;

    const judge = (item) => {
      const answer = item.querySelector(".answer");
      if (!answer) return;
      const unsure = Number(answer.dataset.confidence) < threshold.value / 100;
      item.classList.toggle("unsure", unsure);
      answer.querySelector(".badge").hidden = !unsure;
    };

    const move = () => {
      shown.textContent = `${threshold.value}\u202f%`;
      for (const item of list.children) judge(item);
      if (!answered.length) return;
      const [said, right] = answered[threshold.value];
      const share = (part, whole) => `${(100 * part / whole).toFixed(1)}\u202f%`;
      coverage.textContent = said
        ? `At this threshold the run labels ${share(said, answered[0][0])} of the ${grouped(answered[0][0])} images of the ${coverage.dataset.split} split, ${share(right, said)} of them correctly.`
        : `At this threshold the run labels none of the images of the ${coverage.dataset.split} split.`;
    };

    const tell = () => {
      const parts = [];
      if (done) parts.push(words("# processed", "image", done));
      if (refused) parts.push(`${refused} refused`);
      if (waiting.length + busy) parts.push(`${waiting.length + busy} waiting`);
      if (left) parts.push(`${left} left out: at most ${most.files} at once`);
      status.textContent = parts.length ? `${parts.join(", ")}.` : "";
      clear.disabled = !list.children.length;
    };

    const paragraph = (item, text) => {
      const p = document.createElement("p");
      p.textContent = text;
      item.querySelector("h3").after(p);
    };

    const finish = (item, kind, text) => {
      item.classList.remove("waiting");
      item.removeAttribute("aria-busy");
      item.querySelector("p")?.remove();
      if (kind === "refused") {
        item.classList.add("refused");
        paragraph(item, text);
        refused += 1;
        return;
      }
      const parts = document.createElement("div");
      parts.className = "parts";
      parts.innerHTML = text; // from our own templates, in which every name is escaped; the policy admits no script
      item.append(parts);
      done += 1;
      judge(item);
      for (const button of parts.querySelectorAll(".top5 button")) {
        button.addEventListener("click", () => {
          for (const other of parts.querySelectorAll(".top5 button")) other.setAttribute("aria-pressed", String(other === button));
          for (const map of parts.querySelectorAll(".heat")) map.hidden = map.dataset.class !== button.dataset.class;
        });
      }
    };

    const look = async (file) => {
      if (!file.size) return ["refused", "The file is empty: 0 bytes."];
      if (file.size > most.bytes) return ["refused", `The file has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${most.bytes / 1e6} MB.`];
      try {
        for (let tries = 0; ; tries += 1) {
          const headers = { "Content-Type": "application/octet-stream" };
          const answer = await fetch("look", { method: "POST", body: file, headers });
          if (answer.status === 503 && tries < 60) { // others are being served
            await new Promise((resolve) => { setTimeout(resolve, 1000); });
            continue;
          }
          if (answer.status === 500) return ["refused", "fastcls failed on this image; see the terminal for the reason."];
          const isAnswer = answer.headers.get("content-type").startsWith("text/html");
          return [isAnswer ? "answered" : "refused", await answer.text()];
        }
      } catch {
        return ["refused", "No response. Is fastcls serve still running, and does the file still exist?"];
      }
    };

    const work = async () => {
      if (busy) return;
      busy = true;
      while (waiting.length) {
        const [item, file, own] = waiting.shift();
        tell();
        const [kind, text] = await look(file);
        if (own === generation) finish(item, kind, text);
      }
      busy = false;
      tell();
    };

    const take = (files) => {
      left = Math.max(0, files.length - most.files);
      const items = [...files].slice(0, most.files).map((file) => {
        const item = document.createElement("li");
        item.className = "waiting";
        item.setAttribute("aria-busy", "true");
        const title = document.createElement("h3");
        const name = document.createElement("bdi");
        name.textContent = file.name || "pasted image";
        title.append(name);
        item.append(title);
        paragraph(item, "waiting …");
        waiting.push([item, file, generation]);
        return item;
      });
      list.prepend(...items); // the newest batch is on top
      work();
    };

    input.addEventListener("change", () => { take(input.files); input.value = ""; });
    document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
    document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
    document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
    document.addEventListener("drop", (event) => {
      event.preventDefault(); // or the browser would leave the page for the picture
      drop.classList.remove("over");
      take(event.dataTransfer.files);
    });
    threshold.addEventListener("input", move);
    heat.addEventListener("change", () => document.documentElement.classList.toggle("heated", heat.checked));
    clear.addEventListener("click", () => {
      generation += 1;
      waiting.length = 0;
      list.replaceChildren();
      done = refused = left = 0;
      tell();
      input.focus();
    });
    heat.checked = false; // browsers remember what was ticked before a reload
    threshold.value = threshold.defaultValue;
    move();
  };

  document.addEventListener("DOMContentLoaded", setUp);
})();
