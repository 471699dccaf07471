// Script of the page as a whole: tables that sort, menus, the slider, the words under the pointer, a check of itself.
//
// When all is drawn the root element says so (`data-state`, `data-plots`), by how much the page is wider than the
// window (`data-overflow`), and what went wrong if anything did (`data-errors`): a browser without a window can tell.

package enum ReportScript {
  package static let script = #"""
    const root = document.documentElement;
    function missing(words) { return html("p", {class: "missing"}, words); }

    // MARK: Tables that sort
    function makeSortable(table) {
      const heads = [...table.tHead.rows[0].cells];
      heads.forEach((head, column) => {
        const button = head.querySelector("button");
        button?.addEventListener("click", () => {
          const isAscending = head.getAttribute("aria-sort") !== "ascending";
          for (const other of heads) other.removeAttribute("aria-sort");
          head.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
          const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
          const rows = [...table.tBodies[0].rows];
          rows.sort((one, other) => {
            const a = value(one), b = value(other);
            // What is unknown comes last either way.
            if (a === "" || b === "") return (a === "") - (b === "");
            const order = column === 0 ? a.localeCompare(b) : Number(a) - Number(b);
            return isAscending ? order : -order;
          });
          table.tBodies[0].append(...rows);
        });
      });
    }

    // MARK: A trace
    class TraceSection {
      // Of the slider.
      static steps = 240;

      constructor(trace, element) {
        this.trace = trace;
        this.element = element;
        this.part = (name) => element.querySelector(`[data-part=${name}]`);
        this.part("pareto").after(...paretoLegend(trace), paretoTable(trace));
        this.part("costs").after(legend([[swatch(partColours[0]), "memory"], [swatch(partColours[1]), "TLB misses"],
          [swatch(partColours[2]), "releases, faults, rebuilds"]]), costTable(trace));
        for (const radio of element.querySelectorAll("input[type=radio]")) {
          radio.addEventListener("change", () => this.drawCosts());
        }
        const runs = this.part("runs");
        makeSortable(runs);
        this.part("wide").addEventListener("change", (event) => runs.classList.toggle("wide", event.target.checked));
        this.prepareTime();
      }

      prepareTime() {
        const place = this.part("time"), {trace} = this;
        this.seconds = trace.seconds * 0.6;
        this.panels = [];
        const timed = trace.runs.filter((run) => run.series || run.blocks);
        if (!timed.length) {
          place.replaceChildren(missing("The results of this trace have no series. 'hugespan compare --series " +
            "--json FILE' writes them, and 'hugespan compare --html FILE' takes them by itself."));
          return;
        }
        const menu = (words, canBeNone, chosen) => {
          const select = html("select", {}, ...(canBeNone ? [html("option", {value: "-1"}, "none")] : []),
            ...timed.map((run) => html("option", {value: String(trace.runs.indexOf(run))}, run.title)));
          select.value = String(chosen ? trace.runs.indexOf(chosen) : -1);
          select.addEventListener("change", () => this.choose());
          return [html("label", {}, words, select), select];
        };
        const byCost = [...timed].sort((a, b) => (a.cost ?? Infinity) - (b.cost ?? Infinity));
        // The dearest beside the cheapest shows most.
        const [firstLabel, first] = menu("Run", false, byCost[0]);
        const [secondLabel, second] = menu("beside", true, byCost.length > 1 ? byCost[byCost.length - 1] : undefined);
        this.menus = [first, second];
        this.slider = html("input", {type: "range", min: "0", max: String(TraceSection.steps), step: "1",
          "aria-label": `Trace time of ${trace.name}`});
        this.slider.addEventListener("input", () =>
          this.move(Number(this.slider.value) / TraceSection.steps * trace.seconds));
        this.clock = html("output", {});
        this.player = html("button", {type: "button"}, "Play");
        this.player.addEventListener("click", () => this.play());
        const colours = legend([[swatch("var(--used)"), "used"], [swatch("var(--resident)", true), "resident"],
          [swatch("var(--charged)", true), "charged"], [swatch("var(--coverage)", true), "coverage"]]);
        const grid = html("div", {class: "grid"});
        this.panels = this.menus.map(() => {
          const panel = new RunPanel(this, html("div", {class: "panel"}));
          panel.place.addEventListener("click", (event) => this.pick(panel, event));
          grid.append(panel.place);
          return panel;
        });
        place.replaceChildren(html("div", {class: "controls"}, firstLabel, secondLabel,
          html("div", {class: "time"}, this.player, this.slider, this.clock)), colours,
          legend(conditions.map(([, colour, words]) => [swatch(colour), words])), grid);
        this.choose();
      }

      choose() {
        this.panels.forEach((panel, index) => panel.show(this.trace.runs[Number(this.menus[index].value)]));
        this.drawTime();
      }

      // A click into a plot is a time.
      pick(panel, event) {
        const drawn = event.target.closest("[data-time] svg");
        if (!drawn || !panel.x) return;
        const box = drawn.getBoundingClientRect(), width = drawn.viewBox.baseVal.width;
        const share = ((event.clientX - box.left) / box.width * width - left) / (width - left - right);
        this.move(Math.min(Math.max(share, 0), 1) * this.trace.seconds);
      }

      move(seconds) {
        this.seconds = seconds;
        // Integers: a step in seconds need not lead to the end.
        const step = String(Math.round(seconds / (this.trace.seconds || 1) * TraceSection.steps));
        if (this.slider.value !== step) this.slider.value = step;
        const words = shown(seconds, this.trace.seconds < 10 ? 2 : 1) + " s";
        this.clock.textContent = words;
        this.slider.setAttribute("aria-valuetext", words);
        for (const panel of this.panels) if (panel.run) panel.move(seconds);
      }

      play() {
        if (this.timer) {
          clearInterval(this.timer);
          this.timer = undefined;
          this.player.textContent = "Play";
          return;
        }
        if (this.seconds >= this.trace.seconds) this.seconds = 0;
        this.player.textContent = "Pause";
        this.timer = setInterval(() => {
          const next = Math.min(this.seconds + this.trace.seconds / 120, this.trace.seconds);
          this.move(next);
          if (next >= this.trace.seconds) this.play();
        }, 100);
      }

      drawCosts() {
        const isExcess = this.element.querySelector("input[type=radio]:checked").value === "excess";
        drawCosts(this.trace, this.part("costs"), isExcess);
      }

      drawTime() {
        if (!this.panels.length) return;
        const runs = this.panels.map((panel) => panel.run).filter((run) => run?.series);
        const highest = most(runs.flatMap(({series}) =>
          [0, ...series.usedBytes, ...series.residentBytes, ...series.chargedBytes]));
        for (const panel of this.panels) panel.draw(this.trace, Math.max(highest, 0) / mebibyte, this.seconds);
        this.move(this.seconds);
      }

      draw() {
        drawPareto(this.trace, this.part("pareto"));
        this.drawCosts();
        this.drawTime();
      }
    }

    // MARK: Words under the pointer
    function prepareTip() {
      const tip = html("div", {id: "tip", "aria-hidden": "true"});
      tip.hidden = true;
      document.body.append(tip);
      document.addEventListener("pointermove", (event) => {
        const words = event.target.closest?.("[data-tip]")?.dataset.tip;
        tip.hidden = !words;
        if (!words) return;
        tip.textContent = words;
        const room = root.clientWidth - tip.offsetWidth - 8;
        tip.style.left = Math.max(4, Math.min(event.pageX + 12, room)) + "px";
        tip.style.top = event.pageY + 14 + "px";
      });
    }

    // MARK: Start
    function start() {
      const {traces} = JSON.parse(document.getElementById("data").textContent);
      const sections = traces.map((trace, index) => {
        trace.index = index;
        for (const run of trace.runs) { policyColour(run.policy); strategyShape(run.strategy); }
        return new TraceSection(trace, document.getElementById(`trace-${index}`));
      });
      const overall = document.querySelector("[data-part=overall]");
      const rows = overall ? overallRows(traces) : [];
      if (rows.length) {
        const heads = ["variant", "mean", ...traces.map((trace) => trace.name)];
        overall.after(table("cost/bound, geometric mean and by trace", heads, rows.map((row) =>
          [row.title, shown(row.mean, 3), ...row.peers.map((peer) => shown(peer.costToBound, 3))])));
      }
      const draw = () => {
        for (const section of sections) section.draw();
        if (rows.length) {
          const first = rows[0], last = rows[rows.length - 1];
          drawBars(overall, rows, [], `Cost above the bound over ${traces.length} traces, geometric mean, from ` +
            `${first.title} with ${first.words} to ${last.title} with ${last.words}.`, partColours);
        } else if (overall) {
          overall.replaceChildren(missing("No variant has a cost and a bound in every trace."));
        }
      };
      draw();
      prepareTip();
      let width = root.clientWidth;
      addEventListener("resize", () => {
        if (root.clientWidth === width) return;
        width = root.clientWidth;
        draw();
      });
      root.dataset.plots = String(document.querySelectorAll("svg[role=img][aria-label]").length);
      root.dataset.overflow = String(root.scrollWidth - root.clientWidth);
      root.dataset.state = "drawn";
    }

    addEventListener("error", (event) => { root.dataset.errors = (root.dataset.errors ?? "") + event.message + "; "; });
    start();
    """#
}
