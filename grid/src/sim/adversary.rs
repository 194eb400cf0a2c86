//! Who works against the grid: the adversaries of the verification's specification, one line each in [`LIST`].
//!
//! What each of them does with a task is in `conduct`. Those that lie for a purpose form a ring: they know each other, tell each
//! other what they sign, and sign the same lie about a task, so that one confirms the other. Unless a line says otherwise they work
//! honestly until they have standing by their own count, since a newcomer decides nothing and only gives itself away.
//!
//! Some lines are the nearest thing to what they name, as long as the machine, or the run, has no such thing:
//! - Which tasks are [`dear`](super::Options::dear) it learns from what they cost: of a task that costs no more than others, or where
//!   nobody pays, only the liars know.
//! - Without [`steps`](super::Options::steps) no dispute is over a segment. The withholder lets its lease end then when a lie of its ring is
//!   to be repeated; with steps it lies as the rare cheat does, and when it is asked for the state before the segment it does not answer, or
//!   gives another state, by turns.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Tasks that a liar does honestly before it bursts, unless it is said.
const BUILD_TASKS: u32 = 2_500;

/// Who works against the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Adversary {
    /// Skips every other task.
    Lazy,
    /// Lies about every other task, each time otherwise.
    RandomLiar,
    /// Lies about everything after so many tasks.
    BuildThenBurst {
        /// Tasks that an operator does honestly before.
        build_tasks: u32,
    },
    /// Lies about one task in fifty.
    RareCheat,
    /// Waits until another of its ring has the same task.
    ColludeWhenSafe,
    /// Contradicts results that stand.
    FalseAccuser,
    /// Half of the ring lies rarely, the other half confirms.
    ConfirmingAuditor,
    /// Half of the ring lies rarely, the other half signs what others signed.
    AnswerCopier,
    /// Lies from the first task on.
    Whitewasher,
    /// Four operators in place of one, all in one network.
    SybilFloodOneSubnet,
    /// Four operators in place of one, everywhere.
    SybilFlood,
    /// Lies about the dear tasks alone.
    ValueAsymmetric,
    /// Never answers where a lie of its ring is to be repeated.
    Withholder,
    /// Looks for a receipt that is not drawn.
    SeedGrinder,
    /// Errs in one task of a hundred and does not know it.
    FlakyHardware,
    /// Honest hosts run a module that writes something else each time.
    NondeterministicModule,
    /// Honest hosts run another engine.
    VersionSkew,
}

use Adversary as A;

/// Every adversary, the word for it, and what it does.
pub const LIST: [(Adversary, &str, &str); 17] = [
    (
        A::Lazy,
        "lazy",
        "signs an empty output for every other task; all of them the same, without knowing of each other",
    ),
    (A::RandomLiar, "random-liar", "lies about every other task, each time otherwise and alone"),
    (
        A::BuildThenBurst { build_tasks: BUILD_TASKS },
        "build-then-burst",
        "works honestly for N tasks (build-then-burst:N), then lies about all",
    ),
    (A::RareCheat, "rare-cheat", "with standing, lies about 2 % of its tasks"),
    (
        A::ColludeWhenSafe,
        "collude-when-safe",
        "with standing, delays its answer and lies if another of the ring is asked too",
    ),
    (A::FalseAccuser, "false-accuser", "a newcomer that contradicts every result that it is to repeat"),
    (
        A::ConfirmingAuditor,
        "confirming-auditor",
        "half lie about 2 % of their tasks, half confirm what they are asked to repeat",
    ),
    (
        A::AnswerCopier,
        "answer-copier",
        "half lie about 2 % of their tasks, half sign the first answer that anybody signed",
    ),
    (A::Whitewasher, "whitewasher", "lies about everything from the first task on"),
    (
        A::SybilFloodOneSubnet,
        "sybil-flood-one-subnet",
        "four operators for each host, in one network; with standing, lie about all",
    ),
    (A::SybilFlood, "sybil-flood", "four operators for each host, everywhere; with standing, lie about all"),
    (A::ValueAsymmetric, "value-asymmetric", "with standing, lies about the dear tasks, one in a hundred"),
    (
        A::Withholder,
        "withholder",
        "with standing, lies about 2 % of its tasks; never answers where such a lie is to be repeated, or gives no state in a trial",
    ),
    (A::SeedGrinder, "seed-grinder", "as rare-cheat, and tries receipts until one seems not to be drawn"),
    (A::FlakyHardware, "flaky-hardware", "errs in 1 % of its tasks, each time otherwise"),
    (
        A::NondeterministicModule,
        "nondeterministic-module",
        "a share of the jobs writes something else each time; all hosts are honest",
    ),
    (A::VersionSkew, "version-skew", "a share of the hosts runs another engine; all are honest"),
];

impl Adversary {
    /// Whether its share is one of hosts that sign what is wrong.
    pub fn lies(self) -> bool {
        !matches!(self, Self::NondeterministicModule | Self::VersionSkew)
    }

    /// Whether it comes back under a new name when it is caught, where that costs nothing.
    pub(super) fn comes_back(self) -> bool {
        self.lies() && self != Self::FlakyHardware
    }

    /// Operators that it has in place of one.
    pub(super) fn multiplies(self) -> u32 {
        if matches!(self, Self::SybilFlood | Self::SybilFloodOneSubnet) { 4 } else { 1 }
    }

    fn line(self) -> &'static (Adversary, &'static str, &'static str) {
        let same = |other: &Adversary| std::mem::discriminant(other) == std::mem::discriminant(&self);
        LIST.iter().find(|(other, ..)| same(other)).unwrap_or(&LIST[0])
    }

    /// What it does, in one line.
    pub fn about(self) -> &'static str {
        self.line().2
    }
}

/// Its word, e.g. `rare-cheat`, `build-then-burst:2500`.
impl fmt::Display for Adversary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.line().1)?;
        if let Self::BuildThenBurst { build_tasks } = self {
            write!(f, ":{build_tasks}")?;
        }
        Ok(())
    }
}

impl Serialize for Adversary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text is no adversary.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no adversary: expected one of {}", words())]
pub struct ParseAdversaryError {
    text: String,
}

fn words() -> String {
    LIST.map(|(_, word, _)| word).join(", ")
}

impl FromStr for Adversary {
    type Err = ParseAdversaryError;

    fn from_str(text: &str) -> Result<Self, ParseAdversaryError> {
        let refused = || ParseAdversaryError { text: text.chars().take(80).collect() };
        let (word, number) = text.split_once(':').map_or((text, None), |(word, number)| (word, Some(number)));
        let (adversary, ..) = LIST.iter().find(|(_, other, _)| *other == word).ok_or_else(refused)?;
        match (adversary, number) {
            (adversary, None) => Ok(*adversary),
            (Self::BuildThenBurst { .. }, Some(number)) => {
                number.parse().map(|build_tasks| Self::BuildThenBurst { build_tasks }).map_err(|_| refused())
            }
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_adversary_reads_back_from_its_word() {
        for (adversary, word, about) in LIST {
            assert_eq!(adversary.to_string().parse::<Adversary>().unwrap(), adversary);
            assert_eq!(word.parse::<Adversary>().unwrap(), adversary);
            assert_eq!(adversary.about(), about);
        }
        let build = "build-then-burst:500".parse::<Adversary>().unwrap();
        assert_eq!(build, Adversary::BuildThenBurst { build_tasks: 500 });
        let refusal = "lazy:3".parse::<Adversary>().unwrap_err().to_string();
        assert!(refusal.contains("`lazy:3`") && refusal.contains("seed-grinder"), "{refusal}");
    }
}
