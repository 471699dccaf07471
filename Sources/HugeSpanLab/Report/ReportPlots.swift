// Script of the plots of whole runs: what is charged against what is on hugepages, and what each variant costs.
//
// Every plot is drawn anew for the width that it has, so that its text is as large on a phone as on a desk. A plot is one
// picture to a screen reader, with a sentence for a name; its figures are in the table under it.

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
      for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9 && values.length < 50; index++) {
        values.push(+(index * step).toPrecision(12));
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
        default:
          return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0Z`;
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

    // MARK: Charge and coverage
    // The runs that no other run beats in both, from the least memory to the widest coverage.
    function front(runs) {
      const sorted = [...runs].sort((a, b) => a.memory - b.memory || b.coverage - a.coverage);
      const result = [];
      for (const run of sorted) {
        if (!result.length || run.coverage > result[result.length - 1].coverage + 1e-9) result.push(run);
      }
      return result;
    }

    function drawPareto(trace, place) {
      const runs = trace.runs.filter((run) => isKnown(run.memory) && isKnown(run.coverage));
      const word = trace.isCharged ? "charged" : "resident";
      if (!runs.length) return place.replaceChildren(missing("No run knows both its memory and its coverage."));
      const width = Math.max(place.clientWidth, 260), height = Math.min(480, Math.max(330, width * 0.92));
      const left = 44, right = 14, top = 54, bottom = 40;
      const used = least(runs.map((run) => run.used));
      const edge = (coverage) => (trace.bound - (trace.fullTax ?? 0) * (1 - coverage)) / trace.rent;
      const hasBound = isKnown(trace.bound) && trace.isCharged && trace.rent > 0;
      let low = least([...runs.map((run) => run.memory), used]), high = most(runs.map((run) => run.memory));
      if (hasBound) low = Math.min(low, edge(1));
      const span = Math.max(high - low, high * 0.05, 1);
      low = Math.max(0, low - span * 0.1);
      high += span * 0.1;
      const x = (value) => left + (value - low) / (high - low) * (width - left - right);
      const y = (value) => top + (1 - value) * (height - top - bottom - 12);
      const floor = height - bottom;
      const cheapest = runs.filter((run) => isKnown(run.cost)).sort((a, b) => a.cost - b.cost)[0];
      const best = front(runs);
      const picked = picture(width, height, `${trace.name}: coverage with hugepages against memory ${word}, ${runs.length} runs. ` +
        `Not beaten in both: ${best.map((run) => `${run.title} (${mebibytes(run.memory)}, ${percent(run.coverage)})`).join("; ")}.` +
        (cheapest ? ` Least cost: ${cheapest.title}, ${shown(cheapest.cost, 3)} CPU-seconds` : "") +
        (hasBound ? `; the bound is ${shown(trace.bound, 3)}.` : "."));
      const clip = `clip-${trace.index}`;
      picked.append(svg("clipPath", {id: clip},
        svg("rect", {x: left, y: top, width: width - left - right, height: floor - top})));
      if (hasBound) {
        const upper = x(edge(1)), lower = x(edge(0));
        picked.append(svg("path", {d: `M0 ${y(1)}H${upper}L${lower} ${y(0)}H0Z`, fill: "var(--forbidden)",
          "clip-path": `url(#${clip})`}));
      }
      for (const value of [0, 0.25, 0.5, 0.75, 1]) {
        picked.append(line(left, y(value), width - right, y(value), "grid-line"),
          text(left - 6, y(value) + 4, 100 * value + "%", {"text-anchor": "end"}));
      }
      for (const value of ticks(low, high, width / 90)) {
        picked.append(line(x(value), top - 6, x(value), floor, "grid-line"),
          text(x(value), floor + 16, tickText(value), {"text-anchor": "middle"}));
      }
      picked.append(line(left, floor, width - right, floor, "axis-line"),
        text(width - right, height - 6, `${word}, MiB on average \u2192`, {"text-anchor": "end"}),
        text(4, 12, "\u2191 used memory on hugepages"));
      const taken = [];
      if (isKnown(used)) {
        picked.append(line(x(used), 20, x(used), floor, "axis-line"),
          text(x(used) - 3, 30, "used", {class: "halo", "text-anchor": "end"}));
      }
      if (hasBound) {
        picked.append(svg("path", {d: `M${x(edge(1))} ${y(1)}L${x(edge(0))} ${y(0)}`, class: "mark-line", fill: "none",
          "clip-path": `url(#${clip})`}));
        picked.append(line(x(edge(1)), 20, x(edge(1)), y(1), "mark-line"), text(x(edge(1)) + 4, 30, "bound", {class: "halo strong"}));
      }
      picked.append(svg("path", {fill: "none", stroke: "var(--faint)", "stroke-width": 1.5,
        d: best.map((run, index) => (index ? `H${x(run.memory)}V` : `M${x(run.memory)} `) + y(run.coverage)).join("")}));
      const largest = most(runs.map((run) => run.cost)), full = width < 420 ? 11 : 14;
      const radius = (run) => isKnown(run.cost) && largest > 0 ? Math.max(3, full * Math.sqrt(run.cost / largest)) : 5;
      const drawn = [...runs].sort((a, b) => radius(b) - radius(a));
      for (const run of drawn) {
        const here = [x(run.memory), y(run.coverage)];
        const near = drawn.filter((other) => Math.hypot(x(other.memory) - here[0], y(other.coverage) - here[1]) < 5);
        const colour = policyColour(run.policy);
        picked.append(svg("path", {d: shapePath(strategyShape(run.strategy), ...here, radius(run)), fill: colour,
          "fill-opacity": 0.55, stroke: colour, "stroke-width": 1.5, "data-run": trace.runs.indexOf(run),
          "data-tip": near.slice(0, 8).map((other) => `${other.title}: ${shown(other.memory, 1)} MiB, ` +
            `${percent(other.coverage)}, cost ${shown(other.cost, 3)}`).join("\n") +
            (near.length > 8 ? `\nand ${near.length - 8} more` : "")}));
      }
      // Names where there is room: first of those that matter most.
      const order = [...(cheapest ? [cheapest] : []), ...best, ...drawn];
      const named = [];
      for (const run of order) {
        const here = [x(run.memory), y(run.coverage)];
        if (named.some((other) => Math.hypot(other[0] - here[0], other[1] - here[1]) < 14)) continue;
        const words = `${run.policy} / ${run.strategy}`, length = words.length * 6.3, gap = radius(run) + 4;
        const places = [[here[0] + gap, here[1] + 4], [here[0] - gap - length, here[1] + 4],
          [here[0] - length / 2, here[1] - gap - 2], [here[0] - length / 2, here[1] + gap + 10]];
        let isNamed = false;
        for (const [at, base] of places) {
          const box = [at, base - 11, at + length, base + 3];
          const isFree = box[0] > left && box[2] < width - 2 && box[1] > 34 && box[3] < floor
            && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])
            && !drawn.some((other) => other !== run && x(other.memory) > box[0] - radius(other) && x(other.memory) < box[2] + radius(other)
              && y(other.coverage) > box[1] - radius(other) && y(other.coverage) < box[3] + radius(other));
          if (!isFree) continue;
          taken.push(box);
          picked.append(text(at, base, words, {class: run === cheapest ? "halo strong" : "halo"}));
          isNamed = true;
          break;
        }
        // The cheapest has its name in any case, as well as it can.
        if (!isNamed && run === cheapest) {
          const at = Math.max(left + 2, Math.min(here[0] - length / 2, width - length - 4));
          picked.append(text(at, here[1] + gap + 10, words, {class: "halo strong"}));
          taken.push([at, here[1] + gap - 1, at + length, here[1] + gap + 13]);
          isNamed = true;
        }
        if (isNamed) named.push(here);
      }
      place.replaceChildren(picked);
    }

    function paretoLegend(trace) {
      const seen = (key) => [...new Set(trace.runs.map((run) => run[key]))];
      const shape = (strategy) => svg("svg", {viewBox: "0 0 14 14", "aria-hidden": "true"},
        svg("path", {d: shapePath(strategyShape(strategy), 7, 7.5, 4.2), fill: "none", stroke: "var(--soft)", "stroke-width": 1.5}));
      return [legend(seen("policy").map((policy) => [swatch(policyColour(policy)), policy])),
        legend(seen("strategy").map((strategy) => [shape(strategy), strategy]))];
    }

    function paretoTable(trace) {
      return table(`${trace.name}, charge and coverage`,
        ["run", trace.isCharged ? "charged MiB" : "resident MiB", "coverage", "cost", "above the bound"],
        trace.runs.map((run) => [run.title, shown(run.memory, 1), percent(run.coverage), shown(run.cost, 3), shown(run.excess, 3)]));
    }

    // MARK: Bars
    // Rows of {title, parts: [values], total, words, tip}, the least at the top; marks are [value, words].
    function drawBars(place, rows, marks, label, colours) {
      const width = Math.max(place.clientWidth, 260), isNarrow = width < 520;
      const names = isNarrow ? 0 : Math.min(260, 14 + most(rows.map((row) => row.title.length)) * 6.6);
      const step = isNarrow ? 36 : 24, top = marks.length ? 24 : 6, values = 14 + most(rows.map((row) => row.words.length)) * 7.4;
      const height = top + rows.length * step + 22;
      const high = Math.max(most([...rows.map((row) => row.total), ...marks.map((mark) => mark[0])]), 1e-9);
      const x = (value) => names + Math.max(value, 0) / high * (width - names - values);
      const drawn = picture(width, height, label);
      for (const value of ticks(0, high, (width - names - values) / 70)) {
        drawn.append(line(x(value), top - 4, x(value), height - 20, "grid-line"),
          text(x(value), height - 6, tickText(value), {"text-anchor": value === 0 ? "start" : "middle"}));
      }
      rows.forEach((row, index) => {
        const from = top + index * step + (isNarrow ? 16 : 3), size = isNarrow ? 14 : step - 7;
        drawn.append(isNarrow ? text(0, from - 4, row.title, {})
          : text(names - 8, from + size - 4, row.title, {"text-anchor": "end"}));
        let start = 0;
        row.parts.forEach((part, place) => {
          if (!(part > 0)) return;
          const end = start + part;
          drawn.append(svg("rect", {x: x(start), y: from, width: Math.max(x(end) - x(start) - 1, 0.75), height: size,
            fill: colours[place], "data-tip": row.tip}));
          start = end;
        });
        drawn.append(text(x(Math.max(row.total, 0)) + 6, from + size - 3, row.words, {class: index ? "halo" : "halo strong"}));
      });
      let end = -Infinity;
      for (const [value, words] of [...marks].sort((a, b) => a[0] - b[0])) {
        const wanted = x(value) - words.length * 3.2;
        const at = Math.min(Math.max(wanted, end, 0), width - words.length * 6.4);
        end = at + words.length * 6.4 + 8;
        drawn.append(line(x(value), top - 6, x(value), height - 20, "mark-line"), text(at, 12, words, {class: "strong"}));
      }
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
        return place.replaceChildren(missing("No run of this trace has a " + (isExcess ? "bound to compare its cost with." : "cost.")));
      }
      const rows = known.map((run) => ({
        title: run.title, total: isExcess ? run.excess : run.cost, parts: isExcess ? [0, run.excess] : costParts(run),
        words: isExcess ? shown(run.excess, 3) : shown(run.cost, 3),
        tip: `${run.title}: ${shown(run.cost, 3)} CPU-seconds\nmemory ${shown(costParts(run)[0], 3)}, ` +
          `TLB misses ${shown(run.tax, 3)}, work ${shown(run.work, 3)}\nabove the bound ${shown(run.excess, 3)}`,
      })).sort((a, b) => a.total - b.total);
      const marks = [];
      if (!isExcess && isKnown(trace.objectBound)) marks.push([trace.objectBound, "any heap"]);
      if (!isExcess && isKnown(trace.bound)) marks.push([trace.bound, "bound"]);
      drawBars(place, rows, marks, `${trace.name}: ${isExcess ? "cost above the bound" : "cost"} of ${rows.length} variants in ` +
        `CPU-seconds, from ${rows[0].title} with ${rows[0].words} to ${rows[rows.length - 1].title} with ` +
        `${rows[rows.length - 1].words}` + (isKnown(trace.bound) ? `; the bound is ${shown(trace.bound, 3)}.` : "."), partColours);
    }

    function costTable(trace) {
      const rows = [...trace.runs].sort((a, b) => (a.cost ?? Infinity) - (b.cost ?? Infinity));
      return table(`${trace.name}, costs in CPU-seconds (bound ${shown(trace.bound, 3)}, any heap ${shown(trace.objectBound, 3)})`,
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
        rows.push({title: run.title, total: 100 * (mean - 1), parts: [0, 100 * (mean - 1)], words: "+" + shown(100 * (mean - 1), 1) + "%",
          peers, mean, tip: run.title + peers.map((peer, index) => `\n${traces[index].name} ${shown(peer.costToBound, 3)}`).join("")});
      }
      return rows.sort((a, b) => a.total - b.total);
    }
    """#
}
