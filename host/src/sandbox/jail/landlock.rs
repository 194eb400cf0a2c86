//! Layer 4: landlock. No path but the own directory and what a driver needs, no TCP, no signals and no abstract Unix sockets to
//! processes outside.

use std::path::PathBuf;

use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Drivers, Gap, Jail, JailError, Layer};

/// What is asked for: all that kernels of 2025 know. Older ones give a part.
const WANTED: ABI = ABI::V7;

pub(super) fn enter(jail: &Jail) -> Result<Option<Gap>, JailError> {
    let own = PathFd::new(&jail.own_dir)
        .map_err(|error| JailError::OwnDir { path: jail.own_dir.clone(), source: std::io::Error::other(error) })?;
    let status =
        restrict(own, jail).map_err(|error| JailError::Rules { layer: Layer::Landlock, detail: error.to_string() })?;
    let gap = |detail: &str| Some(Gap { layer: Layer::Landlock, detail: detail.to_owned() });
    Ok(match status {
        RulesetStatus::FullyEnforced => None,
        RulesetStatus::PartiallyEnforced => {
            gap("kernel is older than 6.12, so that network or signals to other processes are not restricted by it")
        }
        RulesetStatus::NotEnforced if jail.drivers.is_some() => return Err(JailError::Drivers),
        RulesetStatus::NotEnforced => gap("kernel has none, or it is switched off"),
    })
}

fn restrict(own: PathFd, jail: &Jail) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let inside = read | AccessFs::WriteFile | AccessFs::Truncate;
    let device = read | AccessFs::WriteFile | AccessFs::IoctlDev;
    let Drivers { readable, devices } = jail.drivers.clone().unwrap_or_default();
    let rules = beneath(&readable, read).chain(beneath(&devices, device));
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rule(PathBeneath::new(own, inside | AccessFs::MakeReg | AccessFs::RemoveFile))?
        .add_rules(rules)?
        .restrict_self()?;
    Ok(status.ruleset)
}

/// A rule for each path that is there: what cannot be opened now cannot be later.
fn beneath(
    paths: &[PathBuf],
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    paths.iter().filter_map(move |path| {
        let opened = PathFd::new(path).ok()?;
        // The kernel takes no rights of directories for a file.
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
        Some(Ok(PathBeneath::new(opened, access)))
    })
}
