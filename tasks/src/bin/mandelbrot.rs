//! Draws a strip of the Mandelbrot set: the example of a typed task, and of floating-point work.
//!
//! In and out are CBOR maps with the fields of [`View`] and [`Strip`]. Each shard of a job gets the same view with
//! other rows.

use std::convert::Infallible;

use guest_sdk::Exit;
use serde::{Deserialize, Serialize};

/// Which part of the plane is looked at, and which rows of the picture this task draws.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
struct View {
    /// Size of the whole picture in pixels.
    width: u32,
    height: u32,
    /// The rows drawn here; those below the picture are left out.
    first_row: u32,
    rows: u32,
    /// Steps after which a point counts as inside.
    steps_max: u16,
    /// Middle of the picture in the plane, and the plane's width across it.
    #[serde(default = "View::whole_x")]
    x: f64,
    #[serde(default)]
    y: f64,
    #[serde(default = "View::whole_span")]
    span: f64,
}

/// The rows drawn.
#[derive(Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(Deserialize))]
struct Strip {
    width: u32,
    first_row: u32,
    /// Row by row, the steps each point took to leave; `steps_max` when it stayed.
    steps: Vec<u16>,
    /// Sum of the squared distances at which points left. It moves with the last bit of any of them, so that two hosts
    /// whose floats differ at all cannot agree by luck.
    left_at: f64,
}

fn main() -> Exit {
    guest_sdk::run(|view: View| Ok::<_, Infallible>(draw(&view)))
}

fn draw(view: &View) -> Strip {
    let pixel = view.span / f64::from(view.width);
    let at = |position: u32, size: u32| (f64::from(position) + 0.5 - f64::from(size) / 2.0) * pixel;
    let mut strip = Strip { width: view.width, first_row: view.first_row, steps: Vec::new(), left_at: 0.0 };
    for row in view.first_row..view.height.min(view.first_row.saturating_add(view.rows)) {
        for column in 0..view.width {
            let (steps, distance) =
                leave(view.x + at(column, view.width), view.y + at(row, view.height), view.steps_max);
            strip.steps.push(steps);
            strip.left_at += distance;
        }
    }
    strip
}

/// Steps until the point passes distance 2, and its squared distance then; 0 when it stays.
fn leave(cx: f64, cy: f64, steps_max: u16) -> (u16, f64) {
    let (mut x, mut y) = (0.0, 0.0);
    for step in 0..steps_max {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return (step, xx + yy);
        }
        (x, y) = (xx - yy + cx, 2.0 * x * y + cy);
    }
    (steps_max, 0.0)
}

impl View {
    fn whole_x() -> f64 {
        -0.75
    }

    fn whole_span() -> f64 {
        3.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> View {
        View { width: 70, height: 40, first_row: 0, rows: 40, steps_max: 200, x: -0.75, y: 0.0, span: 3.5 }
    }

    #[test]
    fn the_set_is_symmetric_and_holds_the_origin() {
        let view = whole();
        let strip = draw(&view);
        let rows: Vec<&[u16]> = strip.steps.chunks(70).collect();
        assert_eq!(rows.len(), 40);
        for (upper, lower) in rows.iter().zip(rows.iter().rev()) {
            assert_eq!(upper, lower);
        }
        assert_eq!(rows[20][50], 200, "the point beside the origin stays");
        assert!(rows[0][0] < 3, "a corner leaves at once");
    }

    #[test]
    fn strips_put_together_are_the_picture() {
        let picture = draw(&whole()).steps;
        let strips = (0..40).step_by(7).flat_map(|first_row| draw(&View { first_row, rows: 7, ..whole() }).steps);
        assert_eq!(strips.collect::<Vec<_>>(), picture);
        assert_eq!(draw(&View { first_row: u32::MAX, rows: u32::MAX, ..whole() }).steps, []);
    }

    #[test]
    fn the_view_comes_and_the_strip_goes_as_cbor() {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let input = guest_sdk::encode(&whole()).unwrap();
        let exit =
            guest_sdk::run_with(&input[..], &mut output, &mut log, |view: View| Ok::<_, Infallible>(draw(&view)));
        assert_eq!(exit, Exit::Done);
        assert_eq!(guest_sdk::decode::<Strip>(&output).unwrap(), draw(&whole()));
    }
}
