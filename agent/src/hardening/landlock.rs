//! Which files may be touched: Landlock, of the thread that asks and those it starts.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::Needs;

/// The newest interface that is made use of.
const NEWEST: ABI = ABI::V6;
/// What every process of a host reads: name resolution and its libraries, the time zone, itself, the kernel's facts. Whole
/// folders, because files such as `resolv.conf` are replaced and a rule is about the file that is there now.
const READ: [&str; 9] = ["/etc", "/usr", "/lib", "/lib64", "/bin", "/proc", "/sys", "/run", "/dev"];

/// Restricts the calling thread: write below `needs.write`, read a little more, neither run programs nor listen.
pub(super) fn restrict(needs: &Needs) -> Result<String, String> {
    let status = try_restrict(needs).map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, _) => Ok("all that is asked for".to_owned()),
        (RulesetStatus::PartiallyEnforced, LandlockStatus::Available { effective_abi, .. }) => {
            Ok(format!("as far as this kernel goes ({effective_abi:?} of {NEWEST:?})"))
        }
        _ => Err("the kernel does not have it, or it is not switched on".to_owned()),
    }
}

fn try_restrict(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let never = AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = AccessFs::from_all(NEWEST) & !never;
    let readable = READ.iter().map(std::path::Path::new).chain(needs.read.iter().map(AsRef::as_ref));
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()?
        .add_rules(rules(readable, read))?
        .add_rules(rules(needs.write.iter().map(AsRef::as_ref), write))?
        .restrict_self()
}

/// A rule for each of the paths that there is.
fn rules<'a>(
    paths: impl Iterator<Item = &'a std::path::Path>,
    access: BitFlags<AccessFs>,
) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    landlock::path_beneath_rules(paths, access)
}
