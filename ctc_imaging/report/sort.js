"use strict";
// A click on a heading sorts its table; a dash, which is a missing value, stays last.
const read = (cell) => (cell.dataset.sort ?? cell.textContent).trim();
const figure = (text) => (/^[<−-]?[\d,.]+(?![\d,.]*-)/.test(text) ? parseFloat(text.replace(/[<,]/g, "").replace("−", "-")) : NaN);
function compare(a, b) {
  const [x, y] = [figure(a), figure(b)];
  return isNaN(x) || isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => [read(row.cells[Math.min(column, row.cells.length - 1)]), row]);
      const missing = ([text]) => text === "–" || text === "";
      rows.sort((a, b) => missing(a) - missing(b) || sign * compare(a[0], b[0]));
      body.append(...rows.map(([, row]) => row));
    });
  });
}
