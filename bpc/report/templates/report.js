// Hover and keyboard: what a cell or a point says is shown beside it; arrow keys move between cells.
"use strict";
const tip = document.getElementById("tip");
const spoken = [...document.querySelectorAll(".cell, .point")];
for (const one of spoken) {  // without this script, browsers show the titles themselves
  const title = one.querySelector("title");
  one.setAttribute("aria-label", title.textContent);
  title.remove();
}
function show(one) {
  tip.textContent = one.getAttribute("aria-label");
  tip.hidden = false;
  const place = one.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const middle = place.left + place.width / 2 - own.width / 2;
  tip.style.left = Math.max(8, Math.min(middle, innerWidth - own.width - 8)) + "px";
  tip.style.top = (place.top > own.height + 10 ? place.top - own.height - 6 : place.bottom + 6) + "px";
}
const hide = () => { tip.hidden = true; };
const found = (event) => event.target.closest ? event.target.closest(".cell, .point") : null;
document.addEventListener("pointerover", (event) => { const one = found(event); if (one) show(one); else hide(); });
document.addEventListener("focusin", (event) => { const one = found(event); if (one) show(one); });
document.addEventListener("focusout", hide);
document.addEventListener("scroll", hide, true);
const drawings = [...document.querySelectorAll(".bpc-pattern svg")].map((svg) => [...svg.querySelectorAll(".cell")]);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { hide(); return; }
  const cell = event.target.closest && event.target.closest(".cell");
  if (!cell) return;
  const row = drawings.findIndex((cells) => cells.includes(cell)), at = drawings[row].indexOf(cell);
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const cells = drawings[Math.max(0, Math.min(drawings.length - 1, row + step[0]))];
  const next = step[0] ? Math.floor((at + 0.5) * cells.length / drawings[row].length) : at + step[1];
  const target = cells[Math.max(0, Math.min(cells.length - 1, next))];
  cell.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
});
