(() => {
  const PRINT_WIDTH = 680;
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
    const options = { ...config, toImageButtonOptions: { filename: plot.id, scale: 2 } };
    Plotly.newPlot(plot, figure.data, figure.layout, options).then(() => { plot.dataset.drawn = "yes"; });
  }
  const recolour = (extra) => plots.forEach((plot) => Plotly.relayout(plot, { "font.color": ink(), ...extra }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => recolour({}));
  addEventListener("beforeprint", () => recolour({ width: PRINT_WIDTH, "font.color": "#000000" }));
  addEventListener("afterprint", () => recolour({ width: null, autosize: true }));
})();
