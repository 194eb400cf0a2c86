//! Two curves over the share of liars, as SVG: wrong results, and cost. One line for each adversary and policy.
//!
//! Wrong results have a logarithmic axis. A point is what was measured, and the line above it the bound that is exceeded with a chance
//! of 5 %; where nothing was wrong there is the bound alone. The bars at the cost are the cheapest and the dearest seed.

use std::{collections::BTreeMap, fmt::Write};

use super::sweep::Point;

const WIDTH: f64 = 900.0;
const PANEL_HEIGHT: f64 = 330.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 50.0;
const GAP: f64 = 80.0;
const COLOURS: [&str; 9] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c510a", "#7a7a7a"];
/// Least wrong share that is drawn.
const LEAST: f64 = 1e-7;

/// One panel: where values lie in it.
struct Panel {
    top: f64,
    least: f64,
    most: f64,
    liars_most: f64,
    is_log: bool,
}

impl Panel {
    fn x(&self, liars: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * liars / self.liars_most
    }

    fn y(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.is_log { value.max(self.least).log10() } else { value };
        let part = (scale(value) - scale(self.least)) / (scale(self.most) - scale(self.least));
        self.top + PANEL_HEIGHT * (1.0 - part.clamp(0.0, 1.0))
    }

    /// Frame, grid, labels.
    fn axes(&self, svg: &mut String, title: &str, unit: &str) {
        let (right, bottom) = (WIDTH - RIGHT, self.top + PANEL_HEIGHT);
        let _ = writeln!(svg, r##"<text x="{LEFT}" y="{:.0}" font-weight="bold">{title}</text>"##, self.top - 12.0);
        for value in self.ticks() {
            let y = self.y(value);
            let label = if self.is_log { format!("{value:.0e}") } else { format!("{value:.2}") };
            let _ = writeln!(svg, r##"<line x1="{LEFT}" y1="{y:.1}" x2="{right}" y2="{y:.1}" stroke="#ddd"/>"##);
            let _ =
                writeln!(svg, r##"<text x="{:.0}" y="{:.1}" text-anchor="end">{label}</text>"##, LEFT - 6.0, y + 4.0);
        }
        for step in 0..=5 {
            let liars = self.liars_most * f64::from(step) / 5.0;
            let x = self.x(liars);
            let _ = writeln!(svg, r##"<line x1="{x:.1}" y1="{}" x2="{x:.1}" y2="{bottom}" stroke="#eee"/>"##, self.top);
            let label = liars * 100.0;
            let _ =
                writeln!(svg, r##"<text x="{x:.1}" y="{:.0}" text-anchor="middle">{label:.0}</text>"##, bottom + 18.0);
        }
        let middle = self.top + PANEL_HEIGHT / 2.0;
        let _ = writeln!(
            svg,
            r##"<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{unit}</text>"##
        );
        let (centre, below) = (f64::midpoint(LEFT, right), bottom + 38.0);
        let _ = writeln!(
            svg,
            r##"<text x="{centre}" y="{below}" text-anchor="middle">liars among operators, in %</text>"##
        );
        let (width, height) = (right - LEFT, PANEL_HEIGHT);
        let frame = r##"fill="none" stroke="#333""##;
        let _ = writeln!(svg, r##"<rect x="{LEFT}" y="{}" width="{width}" height="{height}" {frame}/>"##, self.top);
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let (low, high) = (self.least.log10().round() as i32, self.most.log10().round() as i32);
            (low..=high).map(|power| 10f64.powi(power)).collect()
        } else {
            (0..=5).map(|step| self.least + (self.most - self.least) * f64::from(step) / 5.0).collect()
        }
    }
}

/// The curves of these points.
pub fn svg(points: &[Point]) -> String {
    let mut lines: BTreeMap<String, Vec<&Point>> = BTreeMap::new();
    for point in points {
        lines.entry(format!("{}, {}", point.adversary, point.policy)).or_default().push(point);
    }
    let liars_most = points.iter().map(liars).fold(0.05, f64::max);
    let cost_most = points.iter().map(|point| point.cost_spread.1).fold(1.1, f64::max);
    let cost_most = (cost_most * 10.0 + 0.5).ceil() / 10.0;
    let wrong = Panel { top: TOP, least: LEAST, most: 1.0, liars_most, is_log: true };
    let cost = Panel { top: TOP + PANEL_HEIGHT + GAP, least: 1.0, most: cost_most, liars_most, is_log: false };
    let height = cost.top + PANEL_HEIGHT + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    wrong.axes(&mut svg, "Wrong results among the accepted", "share (dashes: 95 % bound)");
    cost.axes(&mut svg, "Cost", "executions for each accepted result");
    for ((name, line), at) in lines.iter().zip(0..) {
        let colour = COLOURS[at % COLOURS.len()];
        draw_wrong(&mut svg, &wrong, line, colour);
        draw_cost(&mut svg, &cost, line, colour);
        let (x, y) = (WIDTH - RIGHT + 16.0, TOP + 10.0 + 20.0 * at as f64);
        let _ = writeln!(svg, r##"<rect x="{x}" y="{:.0}" width="14" height="4" fill="{colour}"/>"##, y - 6.0);
        let _ = writeln!(svg, r##"<text x="{:.0}" y="{y:.0}" font-size="12">{name}</text>"##, x + 20.0);
    }
    svg.push_str("</svg>\n");
    svg
}

fn liars(point: &Point) -> f64 {
    f64::from(point.liars_ppm) / 1e6
}

fn polyline(svg: &mut String, places: &[(f64, f64)], colour: &str, dashes: &str) {
    let places: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let style = format!(r##"fill="none" stroke="{colour}" stroke-width="1.6"{dashes}"##);
    let _ = writeln!(svg, r##"<polyline points="{}" {style}/>"##, places.join(" "));
}

fn draw_wrong(svg: &mut String, panel: &Panel, line: &[&Point], colour: &str) {
    let bound = |point: &&Point| (panel.x(liars(point)), panel.y(point.wrong_bound_95));
    polyline(svg, &line.iter().map(bound).collect::<Vec<_>>(), colour, r##" stroke-dasharray="4 3""##);
    let measured = line.iter().filter(|point| point.wrong.events > 0);
    let places: Vec<(f64, f64)> = measured.map(|point| (panel.x(liars(point)), panel.y(point.wrong.value()))).collect();
    polyline(svg, &places, colour, "");
    for (x, y) in places {
        let _ = writeln!(svg, r##"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"##);
    }
}

fn draw_cost(svg: &mut String, panel: &Panel, line: &[&Point], colour: &str) {
    let place = |point: &&Point| (panel.x(liars(point)), panel.y(point.cost));
    polyline(svg, &line.iter().map(place).collect::<Vec<_>>(), colour, "");
    for point in line {
        let (least, most) = point.cost_spread;
        let (x, low, high) = (panel.x(liars(point)), panel.y(least), panel.y(most));
        let _ = writeln!(svg, r##"<line x1="{x:.1}" y1="{low:.1}" x2="{x:.1}" y2="{high:.1}" stroke="{colour}"/>"##);
        let _ = writeln!(svg, r##"<circle cx="{x:.1}" cy="{:.1}" r="3" fill="{colour}"/>"##, panel.y(point.cost));
    }
}
