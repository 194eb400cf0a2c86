//! The Sun and its four giants for `n` steps of 0.01 days, as the benchmarks game has it; the energy at the end.

use super::mix;

const BODIES: usize = 5;
const DAYS: f64 = 365.24;
const SOLAR_MASS: f64 = 4.0 * std::f64::consts::PI * std::f64::consts::PI;
const STEP: f64 = 0.01;

#[derive(Clone, Copy)]
struct Body {
    at: [f64; 3],
    speed: [f64; 3],
    mass: f64,
}

impl Body {
    /// Position in astronomical units, speed in those a day, mass in Suns.
    const fn new(at: [f64; 3], speed: [f64; 3], mass: f64) -> Self {
        let [x, y, z] = speed;
        Self { at, speed: [x * DAYS, y * DAYS, z * DAYS], mass: mass * SOLAR_MASS }
    }
}

const START: [Body; BODIES] = [
    Body::new([0.0; 3], [0.0; 3], 1.0),
    Body::new(
        [4.841_431_442_464_72, -1.160_320_044_027_428_4, -0.103_622_044_471_123_11],
        [0.001_660_076_642_744_037, 0.007_699_011_184_197_404, -0.000_069_046_001_697_206_3],
        0.000_954_791_938_424_326_6,
    ),
    Body::new(
        [8.343_366_718_244_58, 4.124_798_564_124_305, -0.403_523_417_114_321],
        [-0.002_767_425_107_268_624, 0.004_998_528_012_349_172, 0.000_023_041_729_757_376_393],
        0.000_285_885_980_666_130_8,
    ),
    Body::new(
        [12.894_369_562_139_13, -15.111_151_401_698_631, -0.223_307_578_892_655_73],
        [0.002_964_601_375_647_616, 0.002_378_471_739_594_809_5, -0.000_029_658_956_854_023_756],
        0.000_043_662_440_433_515_63,
    ),
    Body::new(
        [15.379_697_114_850_917, -25.919_314_609_987_964, 0.179_258_772_950_371_18],
        [0.002_680_677_724_903_893_2, 0.001_628_241_700_382_423, -0.000_095_159_225_451_971_59],
        0.000_051_513_890_204_661_145,
    ),
];

pub(super) fn run(n: u32) -> u64 {
    let mut bodies = START;
    rest(&mut bodies);
    for _ in 0..n {
        advance(&mut bodies);
    }
    mix(n.into(), energy(&bodies).to_bits())
}

/// Gives the Sun the speed with which the whole stays where it is.
fn rest(bodies: &mut [Body; BODIES]) {
    for axis in 0..3 {
        let momentum: f64 = bodies.iter().map(|body| body.speed[axis] * body.mass).sum();
        bodies[0].speed[axis] = -momentum / SOLAR_MASS;
    }
}

fn advance(bodies: &mut [Body; BODIES]) {
    for one in 0..BODIES {
        for other in one + 1..BODIES {
            let apart: [f64; 3] = std::array::from_fn(|axis| bodies[one].at[axis] - bodies[other].at[axis]);
            let square = apart[0] * apart[0] + apart[1] * apart[1] + apart[2] * apart[2];
            let pull = STEP / (square * square.sqrt());
            let (mass, other_mass) = (bodies[one].mass * pull, bodies[other].mass * pull);
            for (axis, apart) in apart.iter().enumerate() {
                bodies[one].speed[axis] -= apart * other_mass;
                bodies[other].speed[axis] += apart * mass;
            }
        }
    }
    for body in bodies {
        for (at, speed) in body.at.iter_mut().zip(&body.speed) {
            *at += STEP * speed;
        }
    }
}

fn energy(bodies: &[Body; BODIES]) -> f64 {
    let mut energy = 0.0;
    for (one, body) in bodies.iter().enumerate() {
        energy += 0.5 * body.mass * body.speed.iter().map(|speed| speed * speed).sum::<f64>();
        for other in &bodies[one + 1..] {
            let square: f64 = body.at.iter().zip(&other.at).map(|(a, b)| (a - b) * (a - b)).sum();
            energy -= body.mass * other.mass / square.sqrt();
        }
    }
    energy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_energy_is_what_the_benchmarks_game_prints() {
        let mut bodies = START;
        rest(&mut bodies);
        assert_eq!(format!("{:.9}", energy(&bodies)), "-0.169075164");
        for _ in 0..1000 {
            advance(&mut bodies);
        }
        assert_eq!(format!("{:.9}", energy(&bodies)), "-0.169087605");
    }
}
