//! Layer 4: landlock. No path but the own directory, no TCP, no signals and no abstract Unix sockets to processes outside.

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Gap, Jail, JailError, Layer};

/// What is asked for: all that kernels of 2025 know. Older ones give a part.
const WANTED: ABI = ABI::V7;

pub(super) fn enter(jail: &Jail) -> Result<Option<Gap>, JailError> {
    let own = PathFd::new(&jail.own_dir)
        .map_err(|error| JailError::OwnDir { path: jail.own_dir.clone(), source: std::io::Error::other(error) })?;
    let status =
        restrict(own).map_err(|error| JailError::Rules { layer: Layer::Landlock, detail: error.to_string() })?;
    let gap = |detail: &str| Some(Gap { layer: Layer::Landlock, detail: detail.to_owned() });
    Ok(match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            gap("kernel is older than 6.12, so that network or signals to other processes are not restricted by it")
        }
        RulesetStatus::NotEnforced => gap("kernel has none, or it is switched off"),
    })
}

fn restrict(own: PathFd) -> Result<RulesetStatus, RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rule(PathBeneath::new(
            own,
            AccessFs::from_read(WANTED) ^ AccessFs::Execute
                | AccessFs::WriteFile
                | AccessFs::MakeReg
                | AccessFs::RemoveFile
                | AccessFs::Truncate,
        ))?
        .restrict_self()?;
    Ok(status.ruleset)
}
