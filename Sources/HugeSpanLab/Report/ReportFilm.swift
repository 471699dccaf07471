// Script of what a run is over time: memory, coverage and pageblocks on one axis of time, and the film of the blocks,
// which a slider moves. Two runs stand beside each other on the same scales, or one.
//
// A value holds until the next sample, so lines are steps. What a slider's move changes (cursors, figures, the frame)
// is changed in place; only another run or another width draws the plots anew.

package enum ReportFilm {
  package static let script = #"""
    // By character, in the order of the legend: colour, words.
    const conditions = [
      ["F", "var(--full)", "full"], ["d", "var(--dense)", "half or more used"],
      ["s", "var(--sparse)", "less than half used"], ["o", "var(--free)", "free, in memory"],
      ["b", "var(--broken)", "broken: hugepage lost"], ["r", "var(--released)", "released in part"],
      ["l", "var(--lazy)", "lazily free"], [".", "var(--absent)", "not in memory"],
    ];
    const mebibyte = 1048576;
    const left = 44, right = 10;

    // The last index whose time is not after `seconds`.
    function indexAt(times, seconds) {
      let index = 0;
      while (index + 1 < times.length && times[index + 1] <= seconds + 1e-9) index++;
      return index;
    }
    function counts(frame) {
      const result = {};
      for (const cell of frame) result[cell] = (result[cell] ?? 0) + 1;
      return result;
    }
    // Steps through known values; what is unknown is a gap.
    function steps(times, values, end, x, y) {
      let path = "", isOpen = false;
      values.forEach((value, index) => {
        if (!isKnown(value)) { isOpen = false; return; }
        const next = index + 1 < times.length ? times[index + 1] : end;
        path += (isOpen ? `V${y(value).toFixed(1)}` : `M${x(times[index]).toFixed(1)} ${y(value).toFixed(1)}`)
          + `H${x(Math.max(next, times[index])).toFixed(1)}`;
        isOpen = true;
      });
      return path;
    }
    // Runs of equal cells of a column, as rectangles of one path for each condition.
    function cellPaths(columns, place) {
      const paths = {};
      for (const [cells, ...where] of columns) {
        let start = 0;
        for (let index = 1; index <= cells.length; index++) {
          if (index < cells.length && cells[index] === cells[start]) continue;
          paths[cells[start]] = (paths[cells[start]] ?? "") + place(start, index, ...where);
          start = index;
        }
      }
      return conditions.filter(([cell]) => paths[cell])
        .map(([cell, colour]) => svg("path", {d: paths[cell], fill: colour}));
    }

    function timeAxis(drawn, width, height, floor, x, end, hasWords) {
      for (const value of ticks(0, end, width / 80)) {
        drawn.append(line(x(value), 4, x(value), floor, "grid-line"));
        const words = tickText(value) + (value === 0 ? " s" : "");
        if (hasWords) drawn.append(text(x(value), floor + 15, words, {"text-anchor": "middle"}));
      }
    }

    // MARK: A run
    class RunPanel {
      constructor(section, place) {
        this.section = section;
        this.place = place;
      }

      show(run) {
        this.run = run;
        this.place.hidden = !run;
        if (!run) return;
        this.readout = html("p", {class: "readout"});
        this.plots = html("div", {class: "plot", "data-time": ""});
        this.frame = html("div", {class: "plot"});
        this.caption = html("p", {class: "readout"});
        const parts = [html("h4", {}, run.title)];
        if (run.series) parts.push(this.readout, this.plots);
        if (run.blocks?.frames.length) parts.push(this.caption, this.frame);
        if (run.series) parts.push(this.seriesTable());
        if (run.blocks?.frames.length) parts.push(this.filmTable());
        if (parts.length === 1) parts.push(missing("This run was recorded without a series."));
        this.place.replaceChildren(...parts);
      }

      draw(trace, highest, seconds) {
        if (!this.run?.series) return;
        const {series, blocks} = this.run, end = trace.seconds || 1;
        const width = Math.max(this.plots.clientWidth, 240);
        const x = (time) => left + time / end * (width - left - right);
        this.x = x;
        this.plots.replaceChildren(
          this.memoryPlot(series, width, x, end, highest), this.coveragePlot(series, width, x, end));
        if (blocks?.frames.length) this.plots.append(this.filmPlot(blocks, width, x, end));
        this.cursors = [...this.plots.querySelectorAll(".cursor")];
        this.move(seconds);
      }

      memoryPlot(series, width, x, end, highest) {
        const height = 180, floor = 160, peak = Math.max(highest, 1);
        const y = (bytes) => floor - bytes / mebibyte / peak * (floor - 14);
        const top = (values) => values.some(isKnown) ? mebibytes(most(values) / mebibyte) : "unknown";
        const drawn = picture(width, height, `${this.run.title}: memory over ${shown(end, 1)} s. At most used ` +
          `${top(series.usedBytes)}, resident ${top(series.residentBytes)}, charged ${top(series.chargedBytes)}.`);
        timeAxis(drawn, width, height, floor, x, end, true);
        for (const value of ticks(0, peak, 4)) {
          drawn.append(line(left, y(value * mebibyte), width - right, y(value * mebibyte), "grid-line"),
            text(left - 6, y(value * mebibyte) + 4, tickText(value), {"text-anchor": "end"}));
        }
        const used = steps(series.seconds, series.usedBytes, end, x, y);
        if (used) drawn.append(svg("path", {d: used + `V${floor}H${x(series.seconds[0])}Z`, fill: "var(--used)"}));
        // The charge is the wider line, and under the other: where they are one both are seen.
        const lines = [[series.chargedBytes, "var(--charged)", 4], [series.residentBytes, "var(--resident)", 1.75]];
        for (const [values, colour, thickness] of lines) {
          const path = steps(series.seconds, values, end, x, y);
          drawn.append(svg("path", {d: path, fill: "none", stroke: colour, "stroke-width": thickness}));
        }
        drawn.append(line(left, floor, width - right, floor, "axis-line"), text(0, 10, "MiB"),
          line(0, 4, 0, floor, "cursor"));
        return drawn;
      }

      coveragePlot(series, width, x, end) {
        const height = 84, floor = 74;
        const y = (share) => floor - share * (floor - 12);
        const known = series.coverage.filter(isKnown);
        const drawn = picture(width, height, `${this.run.title}: share of used memory on hugepages over time` +
          (known.length ? `, from ${percent(least(known))} to ${percent(most(known))}.` : ", unknown."));
        timeAxis(drawn, width, height, floor, x, end, false);
        for (const value of [0, 0.5, 1]) {
          drawn.append(line(left, y(value), width - right, y(value), value ? "grid-line" : "axis-line"),
            text(left - 6, y(value) + 4, 100 * value + "%", {"text-anchor": "end"}));
        }
        const path = steps(series.seconds, series.coverage, end, x, y);
        drawn.append(svg("path", {d: path, fill: "none", stroke: "var(--coverage)", "stroke-width": 2}),
          line(0, 4, 0, floor, "cursor"));
        return drawn;
      }

      // Every frame a column, the first block at the top.
      filmPlot(film, width, x, end) {
        const tallest = Math.max(most(film.frames.map((frame) => frame.length)), 1);
        const height = Math.min(220, Math.max(60, tallest * 2)) + 8, size = (height - 8) / tallest;
        const drawn = picture(width, height, `${this.run.title}: ${film.frames.length} pictures of the heap's ` +
          `pageblocks over time, ${film.every > 1 ? `one block in ${film.every}, ` : ""}at the end ` +
          `${this.inWords(film.frames.length - 1)}.`);
        drawn.append(text(left - 6, 16, "blocks", {"text-anchor": "end"}));
        const columns = film.frames.map((frame, index) => {
          const from = x(film.seconds[index]), until = x(film.seconds[index + 1] ?? end);
          // A little wider than it is: no gap between two columns.
          return [frame, from.toFixed(1), (Math.max(until - from, 0.5) + 0.3).toFixed(1)];
        });
        drawn.append(...cellPaths(columns, (first, last, from, wide) =>
          `M${from} ${(4 + first * size).toFixed(1)}h${wide}v${((last - first) * size).toFixed(1)}h-${wide}z`));
        drawn.append(line(0, 0, 0, height, "cursor"));
        return drawn;
      }

      inWords(index) {
        const {blocks} = this.run, count = counts(blocks.frames[index]);
        const parts = conditions.filter(([cell]) => count[cell]).map(([cell, , words]) => `${count[cell]} ${words}`);
        return parts.join(", ") || "no blocks yet";
      }

      move(seconds) {
        const {series, blocks} = this.run ?? {};
        if (series) {
          for (const cursor of this.cursors ?? []) {
            cursor.setAttribute("x1", this.x(seconds));
            cursor.setAttribute("x2", this.x(seconds));
          }
          const index = indexAt(series.seconds, seconds);
          const figure = (name, value) => [name + " ", html("b", {}, value), "  "];
          const bytes = (values) => isKnown(values[index]) ? mebibytes(values[index] / mebibyte) : "-";
          this.readout.replaceChildren(
            ...figure("used", bytes(series.usedBytes)), ...figure("resident", bytes(series.residentBytes)),
            ...figure("charged", bytes(series.chargedBytes)), ...figure("coverage", percent(series.coverage[index])));
        }
        if (blocks?.frames.length) this.showFrame(blocks, indexAt(blocks.seconds, seconds));
      }

      showFrame(film, index) {
        const columns = 32, frame = film.frames[index];
        const rows = Math.ceil(most(film.frames.map((one) => one.length)) / columns) || 1;
        const words = `${shown(film.seconds[index], 1)} s, ${film.blocks[index]} blocks` +
          (film.every > 1 ? `, one in ${film.every} shown` : "") + `: ${this.inWords(index)}`;
        const drawn = picture(columns * 10, rows * 10, `${this.run.title}, pageblocks at ${words}`);
        drawn.removeAttribute("height");
        const lines = Array.from({length: Math.ceil(frame.length / columns)}, (_, row) =>
          [frame.slice(row * columns, (row + 1) * columns), row]);
        drawn.append(...cellPaths(lines, (from, to, row) => {
          let path = "";
          for (let column = from; column < to; column++) {
            path += `M${column * 10 + 0.75} ${row * 10 + 0.75}h8.5v8.5h-8.5z`;
          }
          return path;
        }));
        this.caption.textContent = words;
        this.frame.replaceChildren(drawn);
      }

      // MARK: Its figures
      seriesTable() {
        const {seconds, usedBytes, residentBytes, chargedBytes, coverage} = this.run.series;
        const cell = (value) => isKnown(value) ? (value / mebibyte).toFixed(1) : "-";
        return table(`${this.run.title} over time, MiB`, ["seconds", "used", "resident", "charged", "coverage"],
          seconds.map((time, index) => [shown(time, 2), cell(usedBytes[index]), cell(residentBytes[index]),
            cell(chargedBytes[index]), percent(coverage[index])]));
      }

      filmTable() {
        const film = this.run.blocks;
        return table(`${this.run.title}, pageblocks over time` + (film.every > 1 ? `, one block in ${film.every}` : ""),
          ["seconds", "blocks", ...conditions.map(([, , words]) => words)],
          film.frames.map((frame, index) => {
            const count = counts(frame);
            return [shown(film.seconds[index], 2), String(film.blocks[index]),
              ...conditions.map(([cell]) => String(count[cell] ?? 0))];
          }));
      }
    }
    """#
}
