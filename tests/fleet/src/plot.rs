//! What happened over time, as a page with drawings in it: no scripts, nothing fetched.

use std::fmt::Write as _;

use crate::report::Report;

/// Lines over the seconds of a run.
#[derive(Debug, Clone, Default)]
pub struct Plot {
    /// Drawn one under the other.
    pub charts: Vec<Chart>,
    /// What happened when: milliseconds and a word.
    pub marks: Vec<(u64, String)>,
}

/// One drawing.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows, with its unit.
    pub title: String,
    /// One value per second from the start of the run.
    pub values: Vec<f64>,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 22.0;
/// Points of a line; a run of hours is drawn by the highest second of each.
const POINTS: usize = 1200;

impl Plot {
    /// Adds a drawing.
    pub fn chart(&mut self, title: &str, values: impl IntoIterator<Item = f64>) {
        let values = values.into_iter().collect();
        self.charts.push(Chart { title: title.to_owned(), values });
    }

    fn seconds(&self) -> usize {
        self.charts.iter().map(|chart| chart.values.len()).max().unwrap_or(0).max(1)
    }
}

/// The page of an experiment's reports.
pub fn page(title: &str, reports: &[Report]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">\n<title>{title}</title>\n\
         <style>body{{font:15px/1.5 system-ui,sans-serif;max-width:{WIDTH}px;margin:2em auto;\
         padding:0 1em;color:#222;background:#fff}}h1{{font-size:1.4em}}h2{{font-size:1.15em;\
         margin-top:2em}}table{{border-collapse:collapse}}td,th{{padding:.15em 1em .15em 0;\
         text-align:left}}td.n{{text-align:right;font-variant-numeric:tabular-nums}}\
         .missed{{color:#b00020;font-weight:600}}.ok{{color:#1b6e3c}}svg{{display:block;\
         width:100%;height:auto;margin:.4em 0}}svg text{{font:11px system-ui,sans-serif;\
         fill:#555}}</style>\n<h1>{title}</h1>\n",
        title = escape(title),
    );
    for report in reports {
        let _ =
            write!(html, "<h2>{}</h2>\n<p>{}</p>\n", escape(&report.name), escape(&report.about));
        html.push_str(&table(report));
        if let Some(plot) = &report.plot {
            for chart in &plot.charts {
                html.push_str(&svg(plot, chart));
            }
        }
    }
    html.push_str("</html>\n");
    html
}

fn table(report: &Report) -> String {
    let mut html = String::from("<table>\n<tr><th>figure<th>value<th>target<th></tr>\n");
    for line in report.cells() {
        let class = if line.verdict == "MISSED" { "missed" } else { "ok" };
        let _ = writeln!(
            html,
            "<tr><td>{}<td class=\"n\">{}<td>{}<td class=\"{class}\">{}</tr>",
            escape(&line.name),
            line.value,
            escape(&line.target),
            line.verdict.to_lowercase(),
        );
    }
    html + "</table>\n"
}

fn svg(plot: &Plot, chart: &Chart) -> String {
    let seconds = plot.seconds() as f64;
    let highest = chart.values.iter().copied().fold(0.0, f64::max);
    let top = nice(highest);
    let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * second / seconds;
    let y = |value: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / top;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <text x=\"{LEFT}\" y=\"12\">{title} (highest: {highest:.0})</text>\n",
        title = escape(&chart.title),
    );
    for value in [0.0, top / 2.0, top] {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/>\
             <text x=\"{label}\" y=\"{text:.1}\" text-anchor=\"end\">{value}</text>",
            y = y(value),
            end = WIDTH - RIGHT,
            label = LEFT - 6.0,
            text = y(value) + 4.0,
        );
    }
    for (at, what) in &plot.marks {
        let at = x(*at as f64 / 1000.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#d98200\" stroke-dasharray=\"3 3\"/>\
             <text x=\"{at:.1}\" y=\"{text}\">{what}</text>",
            bottom = HEIGHT - BOTTOM,
            text = HEIGHT - 8.0,
            what = escape(what),
        );
    }
    let each = chart.values.len().div_ceil(POINTS).max(1);
    let mut line = String::new();
    for (i, values) in chart.values.chunks(each).enumerate() {
        let value = values.iter().copied().fold(0.0, f64::max);
        let (x, y) = (x((i * each) as f64 + each as f64 / 2.0), y(value));
        let _ = write!(line, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
    }
    let _ =
        writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"1.3\"/>");
    svg + "</svg>\n"
}

/// The next of 1, 2, 5, 10, 20 ... above.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|step| step * power)
        .into_iter()
        .find(|n| *n >= value)
        .unwrap_or(value)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Target;

    #[test]
    fn a_page_stands_alone_and_escapes_what_it_is_told() {
        let mut report = Report::new("1 <outage>", "a & b");
        report.figure("connects", 7.0, Target::AtMost(3.0));
        let mut plot = Plot { marks: vec![(5_000, "kill".into())], ..Plot::default() };
        plot.chart("connects/s", (0..10_000).map(f64::from));
        report.plot = Some(plot);
        let html = page("Experiment 1", &[report]);
        assert!(html.contains("1 &lt;outage&gt;") && html.contains("a &amp; b"));
        assert!(html.contains("class=\"missed\">missed"));
        assert!(!html.contains("<script") && !html.contains("http"));
        assert!(html.len() < 40_000, "{} bytes", html.len());
    }

    #[test]
    fn scales_end_at_round_numbers() {
        let ends = [0.0, 0.3, 1.0, 3.0, 7.0, 120.0, 4_999.0].map(nice);
        assert_eq!(ends, [1.0, 0.5, 1.0, 5.0, 10.0, 200.0, 5_000.0]);
    }
}
