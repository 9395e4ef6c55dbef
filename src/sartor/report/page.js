(() => {
  const PRINT_WIDTH = 680;
  const PRINT_SCALE = 0.75;
  const heights = new Map();
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  const plots = [...document.querySelectorAll(".plot")];
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  for (const plot of plots) {
    const figure = JSON.parse(document.getElementById(plot.id + "-data").textContent);
    figure.layout.font.color = ink();
    heights.set(plot, figure.layout.height);
    const options = { ...config, toImageButtonOptions: { filename: plot.id, scale: 2 } };
    Plotly.newPlot(plot, figure.data, figure.layout, options).then(() => { plot.dataset.drawn = "yes"; });
  }
  const relayout = (changes) => plots.forEach((plot) => Plotly.relayout(plot, changes(heights.get(plot))));
  const screen = (height) => ({ "font.color": ink(), width: null, height, autosize: true });
  const paper = (height) => ({ "font.color": "#000000", width: PRINT_WIDTH, height: PRINT_SCALE * height });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => relayout(screen));
  addEventListener("beforeprint", () => relayout(paper));
  addEventListener("afterprint", () => relayout(screen));
})();
