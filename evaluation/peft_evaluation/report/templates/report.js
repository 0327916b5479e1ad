"use strict";
(() => {
  const text = document.getElementById("text");
  const which = document.getElementById("which");
  const count = document.getElementById("count");
  const items = [...document.querySelectorAll("details.item")];
  const contents = items.map((item) => item.textContent.toLowerCase());
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, strategy] = which.value.split(" ");
    let shown = 0;
    items.forEach((item, index) => {
      const mark = kind ? item.dataset.marks[Number(strategy)] : "";
      const fits = words.every((word) => contents[index].includes(word)) &&
        (!kind || mark === (kind === "right" ? "1" : "0"));
      item.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    count.textContent = `${shown} of ${items.length}`;
  };
  // The filter is part of the address, so that a selection can be bookmarked.
  const wanted = new URLSearchParams(location.hash.slice(1));
  text.value = wanted.get("text") ?? "";
  which.value = wanted.get("show") ?? "";
  const changed = () => {
    apply();
    const chosen = new URLSearchParams({ text: text.value, show: which.value });
    history.replaceState(null, "", `#${chosen}`);
  };
  apply();
  text.addEventListener("input", changed);
  which.addEventListener("input", changed);
  document.getElementById("filter").addEventListener("submit", (event) => event.preventDefault());
})();
