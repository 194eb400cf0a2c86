//! Groups points by k-means: the example of a task in steps.
//!
//! In: a line with two numbers, clusters and rounds; then a line a point, its coordinates with blanks between them. Out: a line
//! a cluster, `points: coordinates of the centre`, in the order of the points that the clusters began with, and a last one
//! with the rounds that it took and the sum of squared distances.
//!
//! A step is one round of Lloyd's algorithm: each point goes to the centre that is nearest, each centre to the middle of its
//! points. Between two rounds the host may keep the state, and go on from there elsewhere.

use std::fmt::Write;

use guest_sdk::{Next, Steps};

/// Coordinates of a point, in number.
const DIMENSIONS_MAX: usize = 64;

/// Points, centres, and how far it is.
struct KMeans {
    dimensions: usize,
    /// Coordinates, one point after another.
    points: Vec<f32>,
    /// Which cluster each point is in.
    nearest: Vec<u32>,
    centres: Vec<f32>,
    round: u32,
    rounds_max: u32,
}

guest_sdk::steps!(KMeans);

impl Steps for KMeans {
    type Error = String;

    fn begin(input: Vec<u8>) -> Result<Self, String> {
        let text = String::from_utf8(input).map_err(|error| format!("input is not UTF-8: {error}"))?;
        let mut lines = text.lines();
        let head = numbers::<u32>(lines.next().unwrap_or_default()).map_err(|error| format!("line 1: {error}"))?;
        let [clusters, rounds_max] = head[..] else { return Err("line 1: expected clusters and rounds".to_owned()) };
        let mut points = Vec::new();
        let mut dimensions = 0;
        for (number, line) in (2u32..).zip(lines) {
            let point = numbers::<f32>(line).map_err(|error| format!("line {number}: {error}"))?;
            if number == 2 {
                dimensions = point.len();
            }
            if point.len() != dimensions || !(1..=DIMENSIONS_MAX).contains(&dimensions) {
                return Err(format!("line {number}: {} coordinates, expected {dimensions}", point.len()));
            }
            points.extend(point);
        }
        let count = points.len() / dimensions.max(1);
        let clusters = clusters as usize;
        if !(1..=count).contains(&clusters) {
            return Err(format!("{clusters} clusters of {count} points"));
        }
        // As many points as there are clusters, from all of the list.
        let first = |cluster: usize| &points[cluster * count / clusters * dimensions..][..dimensions];
        let centres = (0..clusters).flat_map(first).copied().collect();
        Ok(Self { dimensions, nearest: vec![u32::MAX; count], points, centres, round: 0, rounds_max })
    }

    fn step(&mut self) -> Result<Next, String> {
        if self.round == self.rounds_max || !self.assign() {
            return Ok(Next::Done(self.report().into_bytes()));
        }
        self.round += 1;
        self.move_centres();
        Ok(Next::More)
    }
}

impl KMeans {
    /// Puts each point to the centre that is nearest; says whether one moved.
    fn assign(&mut self) -> bool {
        let mut moved = false;
        for (point, nearest) in self.points.chunks(self.dimensions).zip(&mut self.nearest) {
            let (mut best, mut least) = (0, f32::INFINITY);
            for (cluster, centre) in (0..).zip(self.centres.chunks(self.dimensions)) {
                let distance = distance(point, centre);
                if distance < least {
                    (best, least) = (cluster, distance);
                }
            }
            moved |= std::mem::replace(nearest, best) != best;
        }
        moved
    }

    /// Puts each centre to the middle of its points; one without points stays.
    fn move_centres(&mut self) {
        let mut sums = vec![0f32; self.centres.len()];
        let counts = self.counts();
        for (point, nearest) in self.points.chunks(self.dimensions).zip(&self.nearest) {
            for (sum, coordinate) in sums[*nearest as usize * self.dimensions..].iter_mut().zip(point) {
                *sum += coordinate;
            }
        }
        let centres = self.centres.chunks_mut(self.dimensions).zip(sums.chunks(self.dimensions));
        for ((centre, sum), count) in centres.zip(counts).filter(|(_, count)| *count > 0) {
            for (coordinate, sum) in centre.iter_mut().zip(sum) {
                *coordinate = sum / count as f32;
            }
        }
    }

    /// Points of each cluster.
    fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.centres.len() / self.dimensions];
        for nearest in &self.nearest {
            if let Some(count) = counts.get_mut(*nearest as usize) {
                *count += 1;
            }
        }
        counts
    }

    fn report(&self) -> String {
        let mut report = String::new();
        for (centre, count) in self.centres.chunks(self.dimensions).zip(self.counts()) {
            let centre: Vec<String> = centre.iter().map(ToString::to_string).collect();
            // Writing to a string does not fail.
            let _ = writeln!(report, "{count}: {}", centre.join(" "));
        }
        let all = self.points.chunks(self.dimensions).zip(&self.nearest);
        let distances = all.filter_map(|(point, nearest)| {
            let centre = self.centres.chunks(self.dimensions).nth(*nearest as usize)?;
            Some(distance(point, centre))
        });
        // The sum of no floats is -0.
        let sum = distances.fold(0.0, |sum: f32, distance| sum + distance);
        let _ = writeln!(report, "{} rounds, {sum}", self.round);
        report
    }
}

/// Squared distance of two points.
fn distance(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(one, other)| (one - other) * (one - other)).sum()
}

fn numbers<T: std::str::FromStr>(line: &str) -> Result<Vec<T>, String> {
    line.split_whitespace().map(|word| word.parse().map_err(|_| format!("`{word}` is no number"))).collect()
}

#[cfg(test)]
mod tests {
    use guest_sdk::Exit;

    use super::*;

    fn run(input: &str) -> (Exit, String, String) {
        let (mut output, mut log) = (Vec::new(), Vec::new());
        let exit = guest_sdk::steps_with::<KMeans>(input.as_bytes(), &mut output, &mut log);
        (exit, String::from_utf8(output).unwrap(), String::from_utf8(log).unwrap())
    }

    #[test]
    fn points_are_grouped_around_their_centres() {
        let (exit, output, _) = run("2 10\n0 0\n0 2\n10 10\n10 14\n");
        assert_eq!((exit, output.as_str()), (Exit::Done, "2: 0 1\n2: 10 12\n1 rounds, 10\n"));
    }

    #[test]
    fn it_ends_after_so_many_rounds() {
        let (_, output, _) = run("1 0\n3\n5\n");
        assert!(output.ends_with("0 rounds, 0\n"), "{output}");
    }

    #[test]
    fn bad_lines_are_named() {
        for (input, expected) in [
            ("", "line 1: expected clusters and rounds"),
            ("2\n", "line 1: expected clusters and rounds"),
            ("2 x\n", "line 1: `x` is no number"),
            ("2 3\n1 2\n1\n", "line 3: 1 coordinates, expected 2"),
            ("3 3\n1\n2\n", "3 clusters of 2 points"),
            ("0 3\n1\n2\n", "0 clusters of 2 points"),
        ] {
            let (exit, output, log) = run(input);
            assert_eq!((exit, output.as_str(), log.trim_end()), (Exit::BadInput, "", expected), "{input:?}");
        }
    }
}
