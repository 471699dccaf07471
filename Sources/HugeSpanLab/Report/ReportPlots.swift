// Script that all plots share (elements, numbers, colours, shapes, tables), and of the bars: what each variant costs.
//
// Every plot is drawn anew for the width that it has, so that its text is as large on a phone as on a desk. A plot is
// one picture to a screen reader, with a sentence for a name; its figures are in the table under it.

package enum ReportPlots {
  package static let script = #"""
    // MARK: Making elements
    function svg(name, attributes, ...children) {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const key in attributes) element.setAttribute(key, attributes[key]);
      element.append(...children);
      return element;
    }
    function html(name, attributes, ...children) {
      const element = document.createElement(name);
      for (const key in attributes) element.setAttribute(key, attributes[key]);
      element.append(...children);
      return element;
    }
    function picture(width, height, label) {
      return svg("svg", {viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label});
    }
    function text(x, y, words, attributes) { return svg("text", {x, y, ...attributes}, words); }
    function line(x1, y1, x2, y2, kind) { return svg("line", {x1, y1, x2, y2, class: kind}); }

    // MARK: Numbers
    const isKnown = (value) => typeof value === "number" && isFinite(value);
    const shown = (value, digits) => isKnown(value) ? value.toFixed(digits) : "-";
    const percent = (value) => isKnown(value) ? (100 * value).toFixed(1) + "%" : "-";
    const mebibytes = (value) => isKnown(value) ? Math.round(value) + " MiB" : "-";
    function most(values) { return values.reduce((a, b) => isKnown(b) && b > a ? b : a, -Infinity); }
    function least(values) { return values.reduce((a, b) => isKnown(b) && b < a ? b : a, Infinity); }

    // Round values between `low` and `high`, about `count` of them.
    function ticks(low, high, count) {
      if (!(high > low)) return [low];
      const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough * 0.999) * power;
      const values = [];
      for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
        values.push(+(index * step).toPrecision(12));
        if (values.length === 50) break;
      }
      return values;
    }
    const tickText = (value) => Math.abs(value) >= 10000 ? (value / 1000) + "k" : String(value);

    // MARK: Colours and shapes
    const policies = [];
    function policyColour(policy) {
      if (!policies.includes(policy)) policies.push(policy);
      return `var(--c${Math.min(policies.indexOf(policy), 8)})`;
    }
    const strategies = [];
    function strategyShape(strategy) {
      if (!strategies.includes(strategy)) strategies.push(strategy);
      return strategies.indexOf(strategy) % 5;
    }
    // The outline of a shape at a place, of the area of a disc with this radius.
    function shapePath(shape, x, y, radius) {
      const corners = (count, turn, size) => Array.from({length: count}, (_, index) => {
        const angle = turn + 2 * Math.PI * index / count;
        return `${(x + size * Math.cos(angle)).toFixed(1)} ${(y + size * Math.sin(angle)).toFixed(1)}`;
      }).join("L");
      switch (shape) {
        case 1: return "M" + corners(4, Math.PI / 4, radius * 1.253) + "Z";
        case 2: return "M" + corners(3, -Math.PI / 2, radius * 1.555) + "Z";
        case 3: return "M" + corners(4, 0, radius * 1.253) + "Z";
        case 4: return "M" + corners(6, 0, radius * 1.1) + "Z";
        default: {
          const half = (width) => `a${radius} ${radius} 0 1 0 ${width} 0`;
          return `M${x - radius} ${y}` + half(2 * radius) + half(-2 * radius) + "Z";
        }
      }
    }
    function swatch(colour, isStroke) {
      return html("span", {class: isStroke ? "swatch stroke" : "swatch", style: `background:${colour}`});
    }
    function legend(entries) {
      return html("ul", {class: "legend"}, ...entries.map(([mark, words]) => html("li", {}, mark, words)));
    }

    // MARK: Tables
    function table(caption, heads, rows) {
      const head = html("tr", {}, ...heads.map((words) => html("th", {scope: "col"}, words)));
      const body = rows.map(([first, ...cells]) =>
        html("tr", {}, html("th", {scope: "row"}, first), ...cells.map((cell) => html("td", {}, cell))));
      const region = html("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
        html("table", {}, html("caption", {}, caption), html("thead", {}, head), html("tbody", {}, ...body)));
      return html("details", {}, html("summary", {}, "Table: " + caption), region);
    }

    // MARK: Bars
    // Rows of {title, parts: [values], total, words, tip}, the least at the top; marks are [value, words].
    function drawBars(place, rows, marks, label, colours) {
      const width = Math.max(place.clientWidth, 260), isNarrow = width < 440;
      const margin = isNarrow ? 0 : Math.min(260, 14 + most(rows.map((row) => row.title.length)) * 6.6);
      const step = isNarrow ? 36 : 24, top = marks.length ? 24 : 6;
      const values = 14 + most(rows.map((row) => row.words.length)) * 7.4;
      const height = top + rows.length * step + 22;
      const high = Math.max(most([...rows.map((row) => row.total), ...marks.map((mark) => mark[0])]), 1e-9);
      const x = (value) => margin + Math.max(value, 0) / high * (width - margin - values);
      const drawn = picture(width, height, label);
      for (const value of ticks(0, high, (width - margin - values) / 70)) {
        drawn.append(line(x(value), top - 4, x(value), height - 20, "grid-line"),
          text(x(value), height - 6, tickText(value), {"text-anchor": value === 0 ? "start" : "middle"}));
      }
      // Words come last: no line goes through them.
      const names = [];
      rows.forEach((row, index) => {
        const from = top + index * step + (isNarrow ? 16 : 3), size = isNarrow ? 14 : step - 7;
        names.push(isNarrow ? text(0, from - 4, row.title, {class: "halo"})
          : text(margin - 8, from + size - 4, row.title, {"text-anchor": "end"}));
        let start = 0;
        row.parts.forEach((part, place) => {
          if (!(part > 0)) return;
          const end = start + part;
          drawn.append(svg("rect", {x: x(start), y: from, width: Math.max(x(end) - x(start) - 1, 0.75), height: size,
            fill: colours[place], "data-tip": row.tip}));
          start = end;
        });
        names.push(text(x(Math.max(row.total, 0)) + 6, from + size - 3, row.words,
          {class: index ? "halo" : "halo strong"}));
      });
      let end = -Infinity;
      for (const [value, words] of [...marks].sort((a, b) => a[0] - b[0])) {
        const wanted = x(value) - words.length * 3.2;
        const at = Math.max(Math.min(Math.max(wanted, end), width - words.length * 6.4), 0);
        end = at + words.length * 6.4 + 12;
        drawn.append(line(x(value), top - 6, x(value), height - 20, "mark-line"),
          text(at, 12, words, {class: "strong"}));
      }
      drawn.append(...names);
      place.replaceChildren(drawn);
    }

    const partColours = ["var(--part0)", "var(--part1)", "var(--part2)"];
    // Memory, TLB misses, work.
    function costParts(run) {
      return [run.cost - (run.work ?? 0) - (run.tax ?? 0), run.tax ?? 0, run.work ?? 0];
    }

    function drawCosts(trace, place, isExcess) {
      const known = trace.runs.filter((run) => isKnown(isExcess ? run.excess : run.cost));
      if (!known.length) {
        const lacking = isExcess ? "a bound to compare its cost with" : "a cost";
        return place.replaceChildren(missing(`No run of this trace has ${lacking}.`));
      }
      const rows = known.map((run) => ({
        title: run.title, total: isExcess ? run.excess : run.cost, parts: isExcess ? [0, run.excess] : costParts(run),
        words: isExcess ? shown(run.excess, 3) : shown(run.cost, 3),
        tip: `${run.title}: ${shown(run.cost, 3)} CPU-seconds\nmemory ${shown(costParts(run)[0], 3)}, ` +
          `TLB misses ${shown(run.tax, 3)}, work ${shown(run.work, 3)}\nabove the bound ${shown(run.excess, 3)}`,
      })).sort((a, b) => a.total - b.total);
      const marks = [];
      for (const [value, words] of [[trace.objectBound, "any heap"], [trace.bound, "bound"]]) {
        if (!isExcess && isKnown(value)) marks.push([value, `${words} ${shown(value, 3)}`]);
      }
      const first = rows[0], last = rows[rows.length - 1];
      const label = `${trace.name}: ${isExcess ? "cost above the bound" : "cost"} of ${rows.length} variants in ` +
        `CPU-seconds, from ${first.title} with ${first.words} to ${last.title} with ${last.words}` +
        (isKnown(trace.bound) ? `; the bound is ${shown(trace.bound, 3)}.` : ".");
      drawBars(place, rows, marks, label, partColours);
    }

    function costTable(trace) {
      const rows = [...trace.runs].sort((a, b) => (a.cost ?? Infinity) - (b.cost ?? Infinity));
      const bounds = `bound ${shown(trace.bound, 3)}, any heap ${shown(trace.objectBound, 3)}`;
      return table(`${trace.name}, costs in CPU-seconds (${bounds})`,
        ["variant", "memory", "TLB misses", "work", "cost", "above the bound", "cost/bound"],
        rows.map((run) => [run.title, ...costParts(run).map((part) => shown(part, 3)), shown(run.cost, 3),
          shown(run.excess, 3), shown(run.costToBound, 3)]));
    }

    // Variants that every trace has: the geometric mean of cost by bound.
    function overallRows(traces) {
      const rows = [];
      for (const run of traces[0].runs) {
        const peers = traces.map((trace) => trace.runs.find((other) => other.title === run.title));
        if (peers.some((peer) => !peer || !(peer.costToBound > 0))) continue;
        const mean = Math.exp(peers.reduce((sum, peer) => sum + Math.log(peer.costToBound), 0) / peers.length);
        const excess = 100 * (mean - 1);
        const tip = peers.map((peer, index) => `\n${traces[index].name} ${shown(peer.costToBound, 3)}`).join("");
        rows.push({title: run.title, total: excess, parts: [0, excess], words: `+${shown(excess, 1)}%`, peers, mean,
          tip: run.title + tip});
      }
      return rows.sort((a, b) => a.total - b.total);
    }
    """#
}
