"""The look of the report's page: light or dark as the reader's system, and readable on a phone."""

STYLE = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #ffffff; --ink: #171b22; --muted: #5d6776;
  --line: #e1e5ea; --main: #0f766e; --other: #a9b4c2; --mark: #6b7787; --track: #eceff3; --warn: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ground: #12151a; --card: #1a1e25; --ink: #e9edf2;
  --muted: #9aa4b2; --line: #2b313b; --main: #2dd4bf; --other: #5c687a; --mark: #8d99aa; --track: #252b34;
  --warn: #ff8a7a; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 56px; -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
nav { position: sticky; top: 0; z-index: 1; background: var(--card); border-bottom: 1px solid var(--line); }
nav div { display: flex; max-width: 1200px; margin: 0 auto; padding: 0 16px; overflow-x: auto;
  scrollbar-width: none; }
nav a { flex: none; padding: 11px 8px; font-size: 13px; color: var(--muted); text-decoration: none; }
nav a:hover { color: var(--main); }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 10px; letter-spacing: -.01em; }
h2 { font-size: 22px; margin: 56px 0 12px; letter-spacing: -.005em; }
h3 { font-size: 16px; margin: 30px 0 8px; }
p { margin: 0 0 12px; max-width: 76ch; }
a { color: var(--main); }
ul { margin: 0 0 12px; padding-left: 20px; max-width: 80ch; }
li { margin: 0 0 8px; }
.after { margin-top: 22px; }
.warning { color: var(--warn); font-weight: 600; }
summary { cursor: pointer; padding: 6px 0; width: fit-content; }
summary:hover { color: var(--main); }
details[open] { margin-bottom: 18px; }
.scroll + details, .scroll + .scroll, .scroll + p { margin-top: 12px; }
.muted { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 16px;
  margin: 24px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 20px 22px; }
.card h3 { margin: 0; font-size: 14px; font-weight: 600; color: var(--muted); }
.big { font-size: 44px; font-weight: 700; line-height: 1.15; color: var(--main); margin: 2px 0 14px;
  font-variant-numeric: tabular-nums; }
.interval { font-size: 14px; font-weight: 400; color: var(--muted); margin-left: 12px; white-space: nowrap; }
.facts { list-style: none; padding: 0; margin: 20px 0 0; max-width: none; color: var(--muted);
  font-size: 14px; }
.facts li { margin: 0 0 2px; }
.bar { display: grid; grid-template-columns: minmax(0, 6.5em) 1fr 3.2em; gap: 10px; align-items: center;
  font-size: 14px; margin-top: 6px; }
.bar span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { height: 9px; border-radius: 5px; background: var(--track); overflow: hidden; }
.fill { display: block; height: 100%; background: var(--other); border-radius: 5px; }
.main .fill { background: var(--main); }
.main { font-weight: 650; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; }
th, td { padding: 8px 10px; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap;
  vertical-align: top; }
th:first-child, td:first-child { padding-left: 16px; }
th:last-child, td:last-child { padding-right: 16px; }
thead th { font-size: 13px; line-height: 1.35; font-weight: 600; color: var(--muted); vertical-align: bottom;
  white-space: normal; min-width: 5em; }
tbody tr:last-child td { border-bottom: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.spread { font-weight: 400; color: var(--muted); }
small { display: block; font-size: 12px; line-height: 1.3; font-weight: 400; color: var(--muted); }
.chart { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 16px 18px 10px; margin: 0 0 16px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(330px, 100%), 1fr)); gap: 20px; }
.panel { margin: 0; }
.panel figcaption { margin: 0 0 4px; font-weight: 600; }
.panel svg { display: block; width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 8px 0 0; max-width: none; font-size: 14px; }
.legend span { font-weight: 400; display: inline-flex; align-items: center; gap: 7px; }
.legend svg { width: 26px; height: 12px; }
.grid { stroke: var(--line); }
.tick, .name { fill: var(--muted); font-size: 12px; font-weight: 400; }
.tick { text-anchor: middle; }
.name { fill: var(--ink); text-anchor: end; }
.whisker { stroke: var(--mark); stroke-width: 2; stroke-opacity: .45; stroke-linecap: round; }
.point { stroke: var(--mark); stroke-width: 2; fill: var(--card); }
.mark.main .whisker { stroke: var(--main); }
.mark.main .point { stroke: var(--main); fill: var(--main); }
figure { margin: 0 0 22px; }
figure + details { margin: -10px 0 26px; }
details > figure { margin-top: 14px; }
img { display: block; width: 100%; height: auto; border-radius: 12px; border: 1px solid var(--line); }
figcaption { font-size: 14px; color: var(--muted); margin-top: 6px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
code { display: block; overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 10px 14px;
  font: 14px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media (max-width: 600px) { main { padding: 28px 16px 56px; } h1 { font-size: 26px; }
  th, td { padding: 7px 10px; } table { font-size: 14px; }
  .interval { display: block; margin: 0; } }
@media print { nav { display: none; } .card, .scroll, .chart, figure { break-inside: avoid; } }
"""
