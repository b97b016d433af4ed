//! Bars and lines as SVG, and nothing more.

use std::fmt::Write as _;

use super::short;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 250.0;
const RIGHT: f64 = 90.0;
const COLOURS: [&str; 10] =
    ["#1f6feb", "#8b949e", "#d29922", "#2ea043", "#a371f7", "#db6d28", "#39c5cf", "#e5534b", "#b87fa0", "#6b8e23"];

/// Horizontal bars in groups, on a logarithmic scale; longer is more.
pub(super) fn bars(title: &str, unit: &str, groups: &[(String, Vec<(String, f64)>)]) -> String {
    let figures = || groups.iter().flat_map(|(_, bars)| bars).map(|(_, figure)| *figure).filter(|f| *f > 0.0);
    let low = figures().fold(f64::INFINITY, f64::min).log10().floor();
    let high = figures().fold(1.0, f64::max).log10().ceil().max(low + 1.0);
    let x = |figure: f64| LEFT + (figure.max(1e-9).log10() - low).max(0.0) / (high - low) * (WIDTH - LEFT - RIGHT);
    let mut body = String::new();
    let mut y = 52.0;
    let mut names: Vec<&str> = Vec::new();
    for (group, bars) in groups {
        let _infallible =
            writeln!(body, r#"<text x="8" y="{:.0}" font-weight="600">{}</text>"#, y + 10.0, escape(group));
        y += 16.0;
        for (name, figure) in bars {
            let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name);
                names.len() - 1
            });
            let end = x(*figure);
            let _infallible = writeln!(
                body,
                r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text><rect x="{LEFT}" y="{y:.0}" width="{:.1}" height="11" fill="{}"/><text x="{:.0}" y="{:.0}">{}</text>"#,
                LEFT - 6.0,
                y + 10.0,
                escape(name),
                (end - LEFT).max(1.0),
                colour(at),
                end + 4.0,
                y + 10.0,
                short(*figure)
            );
            y += 14.0;
        }
        y += 8.0;
    }
    frame(title, &format!("{unit}, logarithmic"), y + 6.0, &body)
}

/// Lines over a common axis, with logarithmic axes on request; `ticks` labels places on the horizontal axis.
pub(super) fn lines(title: &str, unit: &str, ticks: &[(f64, String)], lines: &[(String, Vec<(f64, f64)>)]) -> String {
    const HEIGHT: f64 = 330.0;
    let (left, top) = (70.0, 50.0);
    let points = || lines.iter().flat_map(|(_, points)| points).filter(|(_, y)| *y > 0.0);
    let low = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min).log10().floor();
    let high = points().map(|(_, y)| *y).fold(1e-3, f64::max).log10().ceil().max(low + 1.0);
    let first = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let last = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max).max(first + 1e-9);
    let x = |at: f64| left + (at - first) / (last - first) * (WIDTH - left - 260.0);
    let y = |figure: f64| top + HEIGHT - (figure.max(1e-9).log10() - low) / (high - low) * HEIGHT;
    let mut body = String::new();
    let mut decade = low;
    while decade <= high {
        let at = y(10_f64.powf(decade));
        let _infallible = writeln!(
            body,
            r##"<line x1="{left}" x2="{:.0}" y1="{at:.1}" y2="{at:.1}" stroke="#8b949e" stroke-opacity="0.3"/><text x="{:.0}" y="{:.1}" text-anchor="end">{}</text>"##,
            WIDTH - 260.0,
            left - 6.0,
            at + 4.0,
            short(10_f64.powf(decade))
        );
        decade += 1.0;
    }
    for (at, name) in ticks {
        let _infallible = writeln!(
            body,
            r#"<text x="{:.1}" y="{:.0}" text-anchor="middle">{}</text>"#,
            x(*at),
            top + HEIGHT + 16.0,
            escape(name)
        );
    }
    for (n, (name, points)) in lines.iter().enumerate() {
        let path: Vec<_> = points.iter().map(|(at, figure)| format!("{:.1},{:.1}", x(*at), y(*figure))).collect();
        let label = top + 14.0 * crate::measure::figure(n as u64);
        let _infallible = writeln!(
            body,
            r#"<polyline points="{}" fill="none" stroke="{2}" stroke-width="2"/><rect x="{3:.0}" y="{4:.0}" width="10" height="10" fill="{2}"/><text x="{5:.0}" y="{6:.0}">{1}</text>"#,
            path.join(" "),
            escape(name),
            colour(n),
            WIDTH - 248.0,
            label,
            WIDTH - 234.0,
            label + 9.0
        );
    }
    frame(title, &format!("{unit}, logarithmic"), top + HEIGHT + 30.0, &body)
}

fn frame(title: &str, unit: &str, height: f64, body: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#57606a\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"15\" font-weight=\"600\" fill=\"#24292f\">{}</text>\n\
         <text x=\"8\" y=\"37\">{}</text>\n{body}</svg>\n",
        escape(title),
        escape(unit)
    )
}

fn colour(n: usize) -> &'static str {
    COLOURS.get(n % COLOURS.len()).copied().unwrap_or("#000000")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_bars_have_their_figures() {
        let svg = bars("a < b", "events/s", &[("W1 & W2".to_owned(), vec![("engine".to_owned(), 1_250_000.0)])]);
        assert!(svg.contains("a &lt; b") && svg.contains("W1 &amp; W2") && svg.contains("1.25 M"));
    }
}
