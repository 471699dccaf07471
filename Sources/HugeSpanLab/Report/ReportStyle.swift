// The page's style sheet. Colours are named by what they mean and given twice, for light and for dark; the script draws
// with the names only. One column of cards on a phone, two where there is room.

package enum ReportStyle {
  package static let css = #"""
    :root {
      color-scheme: light dark;
      --page: #f6f6f3; --card: #fdfdfc; --ink: #10100f; --soft: #52514e; --faint: #83817a;
      --line: #e2e1db; --axis: #bdbbb1; --focus: #1c5cab; --forbidden: #ecebe5;
      --c0: #2a78d6; --c1: #eb6834; --c2: #1baf7a; --c3: #eda100; --c4: #4a3aa7; --c5: #e34948; --c6: #e87ba4;
      --c7: #008300; --c8: #83817a;
      --part0: #a9c8ee; --part1: #4c8fdc; --part2: #174a8c;
      --used: #d5d3ca; --resident: #2a78d6; --charged: #eb6834; --coverage: #12875d;
      --full: #174a8c; --dense: #3d7fce; --sparse: #8fb9ea; --free: #cfe0f5;
      --broken: #c8372d; --released: #f0a08c; --lazy: #eda100; --absent: #ecebe5;
    }
    @media (prefers-color-scheme: dark) {
      :root {
        --page: #111110; --card: #1b1b1a; --ink: #f7f7f4; --soft: #c3c2b7; --faint: #939188;
        --line: #2e2e2c; --axis: #55544f; --focus: #86b6ef; --forbidden: #262624;
        --c0: #3987e5; --c1: #d95926; --c2: #199e70; --c3: #c98500; --c4: #9085e9; --c5: #e66767; --c6: #d55181;
        --c7: #3f9a3f; --c8: #939188;
        --part0: #1f4f8c; --part1: #4a90e2; --part2: #b4d2f6;
        --used: #3d3c39; --resident: #5598e7; --charged: #e5703f; --coverage: #2fb887;
        --full: #8fbcf2; --dense: #4f8fdd; --sparse: #295b99; --free: #1d3759;
        --broken: #e5584d; --released: #8a4035; --lazy: #c98500; --absent: #262624;
      }
    }
    * { box-sizing: border-box; }
    body {
      margin: 0 auto; padding: 1rem; max-width: 80rem; background: var(--page); color: var(--ink);
      font: 0.9375rem/1.45 system-ui, sans-serif;
    }
    h1 { font-size: 1.5rem; margin: 0.5rem 0 0.25rem; }
    h2 { font-size: 1.25rem; margin: 2.25rem 0 0.25rem; padding-top: 1rem; border-top: 1px solid var(--axis); }
    h3 { font-size: 1rem; margin: 0 0 0.25rem; }
    h4 { font-size: 0.9375rem; margin: 0; overflow-wrap: anywhere; }
    p { margin: 0.25rem 0; max-width: 75ch; }
    ul { margin: 0.25rem 0 0.75rem; padding-left: 1.25rem; max-width: 85ch; }
    a { color: var(--focus); }
    .soft, figcaption p, summary { color: var(--soft); }
    .soft, figcaption p, summary, .legend, .readout { font-size: 0.8125rem; }
    nav { display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; margin: 0.75rem 0; }
    :focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; border-radius: 3px; }
    .skip { position: absolute; left: -99rem; }
    .skip:focus { left: 1rem; top: 0.5rem; background: var(--card); padding: 0.5rem; z-index: 3; }
    .grid {
      display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem;
      align-items: start;
    }
    .card {
      margin: 0 0 1rem; padding: 0.875rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
      min-width: 0;
    }
    .grid > .card { margin: 0; }
    .grid + .card { margin-top: 1rem; }
    .panel { min-width: 0; }
    .plot { position: relative; }
    svg { display: block; width: 100%; overflow: hidden; touch-action: pan-y; }
    svg text { fill: var(--soft); font-size: 12px; font-family: inherit; }
    svg .strong { fill: var(--ink); }
    svg .halo { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
    svg .grid-line { stroke: var(--line); }
    svg .axis-line { stroke: var(--axis); }
    svg .mark-line { stroke: var(--ink); stroke-dasharray: 5 4; }
    svg .cursor { stroke: var(--ink); stroke-width: 1; }
    .legend {
      display: flex; flex-wrap: wrap; gap: 0.25rem 0.875rem; margin: 0.375rem 0; padding: 0; color: var(--soft);
    }
    .legend li { list-style: none; display: flex; align-items: center; gap: 0.375rem; }
    .legend svg { width: 14px; height: 14px; flex: none; }
    .swatch { width: 12px; height: 12px; border-radius: 2px; flex: none; }
    .swatch.stroke { height: 3px; }
    fieldset { border: 0; margin: 0.25rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.25rem 1rem; }
    legend { float: left; margin-right: 0.75rem; color: var(--soft); padding: 0; }
    label { display: inline-flex; align-items: center; gap: 0.375rem; }
    .controls { display: flex; flex-wrap: wrap; gap: 0.5rem 1.25rem; margin: 0.5rem 0; align-items: center; }
    .time { flex: 1 1 20rem; display: flex; gap: 0.5rem; align-items: center; }
    .time input { flex: 1; min-width: 6rem; accent-color: var(--focus); }
    .time output { min-width: 4.5em; text-align: right; font-variant-numeric: tabular-nums; }
    select, button {
      font: inherit; color: inherit; background: var(--page); border: 1px solid var(--axis); border-radius: 5px;
      padding: 0.3rem 0.5rem; max-width: 100%; min-height: 2.25rem;
    }
    .controls label { max-width: 100%; flex-wrap: wrap; }
    .readout { font-variant-numeric: tabular-nums; color: var(--soft); min-height: 1.4em; margin: 0.125rem 0 0.25rem; }
    .readout b { color: var(--ink); font-weight: 600; }
    details { margin-top: 0.375rem; }
    summary { cursor: pointer; padding: 0.25rem 0; }
    .scroll { overflow: auto; max-height: 34rem; border: 1px solid var(--line); border-radius: 5px; }
    details .scroll { max-height: 20rem; }
    table { border-collapse: separate; border-spacing: 0; font-size: 0.8125rem; font-variant-numeric: tabular-nums; }
    caption { text-align: left; color: var(--soft); padding: 0.375rem 0.5rem; }
    th, td { padding: 0.25rem 0.5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
    thead th { position: sticky; top: 0; background: var(--card); z-index: 1; font-weight: 600; }
    tbody th, thead th:first-child { text-align: left; left: 0; position: sticky; background: var(--card); }
    tbody th {
      font-weight: 400; max-width: 42vw; overflow-wrap: anywhere; white-space: normal; min-width: min(14rem, 36vw);
    }
    thead th:first-child { z-index: 2; }
    thead button {
      border: 0; background: none; padding: 0 0.125rem; min-height: 1.75rem; font-weight: 600; cursor: pointer;
    }
    thead button::after { content: "\2195"; color: var(--faint); margin-left: 0.25em; font-weight: 400; }
    th[aria-sort=ascending] button::after { content: "\2191"; color: var(--ink); }
    th[aria-sort=descending] button::after { content: "\2193"; color: var(--ink); }
    td.best { font-weight: 700; }
    td.best::after { content: "*"; margin-right: -0.45em; }
    table.runs:not(.wide) .more { display: none; }
    tbody tr:hover > * { background: var(--page); }
    #tip {
      position: absolute; z-index: 4; pointer-events: none; background: var(--ink); color: var(--card);
      font-size: 0.75rem; padding: 0.375rem 0.5rem; border-radius: 5px; white-space: pre-line; max-width: 20rem;
      line-height: 1.35;
    }
    .missing { padding: 0.75rem; border: 1px dashed var(--axis); border-radius: 5px; color: var(--soft); }
    code { font-size: 0.9em; overflow-wrap: anywhere; }
    @media (max-width: 40rem) {
      body { padding: 0.625rem; }
      .card { padding: 0.625rem; }
    }
    @media print { .controls button, .skip { display: none; } .scroll { max-height: none; overflow: visible; } }
    """#
}
