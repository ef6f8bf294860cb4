"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const COMPOSED = ["facet", "hconcat", "vconcat", "concat", "repeat", "spec"];

  function theme(width) {
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const text = { labelColor: color("--soft"), titleColor: color("--ink") };
    const columns = Math.max(1, Math.floor(width / 190));
    return {
      background: "transparent",
      font: getComputedStyle(document.body).fontFamily,
      view: { stroke: color("--line") },
      axis: { ...text, domainColor: color("--line"), gridColor: color("--line"), tickColor: color("--line"), labelLimit: Math.min(180, width / 3) },
      legend: { ...text, orient: "bottom", direction: "horizontal", columns, labelLimit: Math.max(80, width / columns - 50), gradientLength: Math.min(180, width / 2) },
      header: text,
      title: { color: color("--ink"), subtitleColor: color("--soft") },
      text: { color: color("--ink") },
      rule: { color: color("--soft") },
      mark: { color: color("--accent") },
      range: {
        category: dark.matches
          ? ["#5cc8c0", "#f2b263", "#b79cf2", "#8fd16f", "#6fb1ff", "#e58fc3", "#c9c2b2", "#e8e06a"]
          : ["#0b6e6e", "#c2701c", "#6a4fb3", "#4b8b2b", "#1f62b5", "#a83f83", "#6d675a", "#8a7a00"],
      },
    };
  }

  // The width of each view of a facet or a concatenation, so that all fit the card side by side.
  function share(spec, width) {
    const columns = Math.max(1, Math.min(spec.columns || 1, Math.floor(width / 260)));
    return [columns, Math.max(120, Math.floor(width / columns) - 75)];
  }

  function fitted(spec, plot) {
    const width = plot.clientWidth;
    const { usermeta, ...own } = spec; // could replace the options below
    own.description = plot.dataset.spoken;
    if (own.facet && own.spec) {
      const [columns, each] = share(own, width);
      return { ...own, columns, spec: { ...own.spec, width: each } };
    }
    if (own.concat) {
      const [columns, each] = share(own, width);
      return { ...own, columns, concat: own.concat.map((view) => ({ ...view, width: each })) };
    }
    if (COMPOSED.some((key) => key in own)) return own;
    own.autosize = { type: "fit-x", contains: "padding" };
    if (!own.width || own.width === "container") own.width = width;
    if ("square" in plot.dataset) own.height = Math.min(420, width - 60);
    return own;
  }

  async function draw() {
    for (const plot of document.querySelectorAll("[data-figure]")) {
      const options = {
        mode: "vega-lite",
        renderer: "svg",
        ast: true, // interpreted: the page allows no code made from text
        config: theme(plot.clientWidth),
        actions: { export: true, source: false, compiled: false, editor: false },
      };
      try {
        await vegaEmbed(plot, fitted(specs[Number(plot.dataset.figure)], plot), options);
        const menu = plot.querySelector("summary");
        if (menu) menu.setAttribute("aria-label", "Save this figure");
      } catch (error) {
        plot.className = "plot failed";
        plot.textContent = `This figure cannot be drawn: ${error.message}`;
      }
    }
  }

  function sort(table, column, heading) {
    const ascending = heading.getAttribute("aria-sort") === "descending";
    const rows = [...table.tBodies[0].rows];
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x !== undefined && y !== undefined) return Number(x) - Number(y);
      if (x !== undefined || y !== undefined) return x === undefined ? -1 : 1;
      return a.cells[column].textContent.localeCompare(b.cells[column].textContent);
    };
    rows.sort((a, b) => (ascending ? compare(a, b) : compare(b, a)));
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      heading.firstElementChild.addEventListener("click", () => sort(table, column, heading));
    });
  }

  for (const search of document.querySelectorAll(".search")) {
    const parts = [...search.nextElementSibling.querySelectorAll("tbody tr, .sample")];
    const texts = parts.map((part) => part.textContent.toLowerCase());
    const [input, output] = [search.querySelector("input"), search.querySelector("output")];
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      parts.forEach((part, index) => {
        part.hidden = !words.every((word) => texts[index].includes(word));
        shown += !part.hidden;
      });
      output.textContent = words.length ? `${shown} of ${parts.length}` : "";
    });
  }

  let width = innerWidth;
  let pending;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(pending);
    pending = setTimeout(draw, 150);
  });
  dark.addEventListener("change", draw);
  draw().then(() => document.documentElement.setAttribute("data-drawn", ""));
})();
