// Script of the plot of charge against coverage.
//
// The bound is a cost and not a place, so it is drawn as the line on which memory and TLB misses together cost as much,
// releases and faults left aside: the rent of what is charged, and the tax of a run without hugepages by the share of
// used memory that is not on them. What lies left of it would cost less than the bound.

package enum ReportPareto {
  package static let script = #"""
    // The runs that no other run beats in both, from the least memory to the widest coverage.
    function front(runs) {
      const sorted = [...runs].sort((a, b) => a.memory - b.memory || b.coverage - a.coverage);
      const result = [];
      for (const run of sorted) {
        if (!result.length || run.coverage > result[result.length - 1].coverage + 1e-9) result.push(run);
      }
      return result;
    }
    function cheapest(runs) {
      return runs.filter((run) => isKnown(run.cost)).sort((a, b) => a.cost - b.cost)[0];
    }

    class ParetoPlot {
      constructor(trace, runs, width) {
        Object.assign(this, {trace, runs, width});
        this.height = Math.min(480, Math.max(330, width * 0.92));
        Object.assign(this, {left: 44, right: width - 14, top: 54, floor: this.height - 40});
        this.used = least(runs.map((run) => run.used));
        this.hasBound = isKnown(trace.bound) && trace.isCharged && trace.rent > 0;
        const memory = runs.map((run) => run.memory);
        if (this.hasBound) memory.push(this.edge(1));
        const low = least([...memory, this.used]), high = most(memory);
        const span = Math.max(high - low, high * 0.05, 1);
        this.low = Math.max(0, low - span * 0.1);
        this.high = high + span * 0.1;
        this.best = front(runs);
        this.cheapest = cheapest(runs);
        this.largest = most(runs.map((run) => run.cost));
        // The larger first, so that they hide no smaller one.
        this.drawn = [...runs].sort((a, b) => this.radius(b) - this.radius(a));
        this.picture = picture(width, this.height, this.label());
      }

      // MiB at which memory and TLB misses cost as much as the bound, with this coverage.
      edge(coverage) {
        return (this.trace.bound - (this.trace.fullTax ?? 0) * (1 - coverage)) / this.trace.rent;
      }
      x(memory) { return this.left + (memory - this.low) / (this.high - this.low) * (this.right - this.left); }
      y(coverage) { return this.top + (1 - coverage) * (this.floor - this.top - 12); }
      place(run) { return [this.x(run.memory), this.y(run.coverage)]; }
      radius(run) {
        const full = this.width < 420 ? 11 : 14;
        return isKnown(run.cost) && this.largest > 0 ? Math.max(3, full * Math.sqrt(run.cost / this.largest)) : 5;
      }

      label() {
        const {trace, runs} = this;
        const best = this.best.map((run) => `${run.title} (${mebibytes(run.memory)}, ${percent(run.coverage)})`);
        let words = `${trace.name}: coverage with hugepages against memory ${word(trace)}, ${runs.length} runs. ` +
          `Not beaten in both: ${best.join("; ")}.`;
        if (this.cheapest) {
          words += ` Least cost: ${this.cheapest.title}, ${shown(this.cheapest.cost, 3)} CPU-seconds.`;
        }
        if (this.hasBound) words += ` The bound is ${shown(trace.bound, 3)}.`;
        return words;
      }

      draw() {
        this.drawGround();
        this.drawMarks();
        for (const run of this.drawn) this.drawPoint(run);
        this.drawNames();
        return this.picture;
      }

      drawGround() {
        const {left, right, top, floor} = this;
        const clip = `clip-${this.trace.index}`;
        this.picture.append(svg("clipPath", {id: clip},
          svg("rect", {x: left, y: top, width: right - left, height: floor - top})));
        this.clip = {"clip-path": `url(#${clip})`};
        if (this.hasBound) {
          const outline = `M0 ${top}H${this.x(this.edge(1))}L${this.x(this.edge(0))} ${this.y(0)}H0Z`;
          this.picture.append(svg("path", {d: outline, fill: "var(--forbidden)", ...this.clip}));
        }
        for (const value of [0, 0.25, 0.5, 0.75, 1]) {
          this.picture.append(line(left, this.y(value), right, this.y(value), "grid-line"),
            text(left - 6, this.y(value) + 4, 100 * value + "%", {"text-anchor": "end"}));
        }
        for (const value of ticks(this.low, this.high, this.width / 90)) {
          this.picture.append(line(this.x(value), top - 6, this.x(value), floor, "grid-line"),
            text(this.x(value), floor + 16, tickText(value), {"text-anchor": "middle"}));
        }
        this.picture.append(line(left, floor, right, floor, "axis-line"),
          text(right, this.height - 6, `${word(this.trace)}, MiB on average \u2192`, {"text-anchor": "end"}),
          text(4, 12, "\u2191 used memory on hugepages"));
      }

      drawMarks() {
        if (isKnown(this.used)) {
          const used = this.x(this.used);
          this.picture.append(line(used, 20, used, this.floor, "axis-line"),
            text(used - 3, 30, "used", {class: "halo", "text-anchor": "end"}));
        }
        if (this.hasBound) {
          const upper = this.x(this.edge(1)), slope = `M${upper} ${this.y(1)}L${this.x(this.edge(0))} ${this.y(0)}`;
          this.picture.append(svg("path", {d: slope, class: "mark-line", fill: "none", ...this.clip}),
            line(upper, 20, upper, this.y(1), "mark-line"), text(upper + 4, 30, "bound", {class: "halo strong"}));
        }
        let path = "";
        for (const run of this.best) {
          const [x, y] = this.place(run);
          path += (path ? `H${x}V` : `M${x} `) + y;
        }
        this.picture.append(svg("path", {d: path, fill: "none", stroke: "var(--faint)", "stroke-width": 1.5}));
      }

      drawPoint(run) {
        const [x, y] = this.place(run), colour = policyColour(run.policy);
        // Points that lie on each other are told together.
        const near = this.drawn.filter((other) => {
          const [otherX, otherY] = this.place(other);
          return Math.hypot(otherX - x, otherY - y) < 5;
        });
        const tips = near.slice(0, 8).map((other) =>
          `${other.title}: ${shown(other.memory, 1)} MiB, ${percent(other.coverage)}, cost ${shown(other.cost, 3)}`);
        if (near.length > 8) tips.push(`and ${near.length - 8} more`);
        this.picture.append(svg("path", {d: shapePath(strategyShape(run.strategy), x, y, this.radius(run)),
          fill: colour, "fill-opacity": 0.55, stroke: colour, "stroke-width": 1.5, "data-tip": tips.join("\n")}));
      }

      // Names where there is room, first of those that matter most.
      drawNames() {
        const taken = [], named = [];
        for (const run of [...(this.cheapest ? [this.cheapest] : []), ...this.best, ...this.drawn]) {
          const [x, y] = this.place(run);
          if (named.some((other) => Math.hypot(other[0] - x, other[1] - y) < 14)) continue;
          const words = `${run.policy} / ${run.strategy}`, length = words.length * 6.3, gap = this.radius(run) + 4;
          const places = [[x + gap, y + 4], [x - gap - length, y + 4], [x - length / 2, y - gap - 2],
            [x - length / 2, y + gap + 10]];
          const box = ([at, base]) => [at, base - 11, at + length, base + 3];
          let chosen = places.find((place) => this.isFree(box(place), run, taken));
          // The cheapest has its name in any case, as well as it can.
          if (!chosen && run === this.cheapest) {
            chosen = [Math.max(this.left + 2, Math.min(x - length / 2, this.width - length - 4)), y + gap + 10];
          }
          if (!chosen) continue;
          taken.push(box(chosen));
          named.push([x, y]);
          this.picture.append(text(...chosen, words, {class: run === this.cheapest ? "halo strong" : "halo"}));
        }
      }

      // Whether a box is in the plot, and on no other name and no other run's point.
      isFree([from, top, to, bottom], run, taken) {
        if (from <= this.left || to >= this.width - 2 || top <= 34 || bottom >= this.floor) return false;
        const isOn = (other) => from < other[2] && other[0] < to && top < other[3] && other[1] < bottom;
        if (taken.some(isOn)) return false;
        return !this.drawn.some((other) => {
          if (other === run) return false;
          const [x, y] = this.place(other), size = this.radius(other);
          return x > from - size && x < to + size && y > top - size && y < bottom + size;
        });
      }
    }

    const word = (trace) => trace.isCharged ? "charged" : "resident";

    function drawPareto(trace, place) {
      const runs = trace.runs.filter((run) => isKnown(run.memory) && isKnown(run.coverage));
      place.replaceChildren(runs.length ? new ParetoPlot(trace, runs, Math.max(place.clientWidth, 260)).draw()
        : missing("No run knows both its memory and its coverage."));
    }

    function paretoLegend(trace) {
      const seen = (key) => [...new Set(trace.runs.map((run) => run[key]))];
      const shape = (strategy) => svg("svg", {viewBox: "0 0 14 14", "aria-hidden": "true"},
        svg("path", {d: shapePath(strategyShape(strategy), 7, 7.5, 4.2), fill: "none", stroke: "var(--soft)",
          "stroke-width": 1.5}));
      return [legend(seen("policy").map((policy) => [swatch(policyColour(policy)), policy])),
        legend(seen("strategy").map((strategy) => [shape(strategy), strategy]))];
    }

    function paretoTable(trace) {
      const rows = trace.runs.map((run) =>
        [run.title, shown(run.memory, 1), percent(run.coverage), shown(run.cost, 3), shown(run.excess, 3)]);
      return table(`${trace.name}, charge and coverage`,
        ["run", word(trace) + " MiB", "coverage", "cost", "above the bound"], rows);
    }
    """#
}
