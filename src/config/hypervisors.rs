//! Which hypervisor a VM gets that does not say, and what is executed for each.

use std::collections::BTreeMap;

use crate::error::Refusal;
use crate::hypervisor::{CLOUD_HYPERVISOR, FIRECRACKER, QEMU};
use crate::spec::fields::{Fields, Place};
use crate::spec::text;

use super::source::{Found, Key, Rank, Sources};

/// The most hypervisors that the file can describe.
pub const HYPERVISORS_MAX: usize = 32;
/// The most arguments of a template.
pub const TEMPLATE_ARGS_MAX: usize = 128;

const HYPERVISOR: Key =
    Key::new("hypervisor", None, "VOLNET_HYPERVISOR", Some("VOLANT_HYPERVISOR"));
const KNOWN: [&str; 3] = [CLOUD_HYPERVISOR, QEMU, FIRECRACKER];

/// What is executed for a hypervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// A path, or a name to be found in PATH.
    pub path: String,
    /// The arguments, with placeholders, of one that volnet does not know.
    pub template: Option<Vec<String>>,
}

/// The hypervisor of a VM that does not say.
pub(super) fn default(sources: &Sources) -> Result<String, Refusal> {
    let Some(found) = sources.text(&HYPERVISOR)? else { return Ok(CLOUD_HYPERVISOR.into()) };
    if volant_program(&found).is_some() {
        return Ok(CLOUD_HYPERVISOR.into());
    }
    let described = sources.file.entries("hypervisors")?;
    let described = described.iter().any(|(_, name, _)| *name == found.text);
    if described || KNOWN.contains(&found.text.as_str()) {
        return Ok(found.text);
    }
    Err(found.refuse(format!(
        "{:?} is neither {} nor described in hypervisors",
        found.text,
        KNOWN.join(", ")
    )))
}

/// Volant's variable is the program of Cloud Hypervisor, the only one that it has. The name of one
/// of ours means that one.
fn volant_program(found: &Found) -> Option<&str> {
    (found.rank == Rank::Volant && !KNOWN.contains(&found.text.as_str())).then_some(&found.text)
}

/// What is executed for each hypervisor that the file describes, and for Volant's.
pub(super) fn programs(sources: &Sources) -> Result<BTreeMap<String, Program>, Refusal> {
    let table = sources.file.entries("hypervisors")?;
    if table.len() > HYPERVISORS_MAX {
        let reason = format!("there may be at most {HYPERVISORS_MAX}");
        return Err(sources.file.place.field("hypervisors").refuse(reason));
    }
    let mut programs = BTreeMap::new();
    for (place, name, value) in table {
        text::name(name).map_err(|reason| place.refuse(reason))?;
        programs.insert(name.to_owned(), program(place, name, value)?);
    }
    if let Some(found) = sources.outside(&HYPERVISOR)
        && let Some(path) = volant_program(&found)
    {
        let path = found.parsed(|_| executable(path))?;
        programs.insert(CLOUD_HYPERVISOR.into(), Program { path, template: None });
    }
    Ok(programs)
}

fn program(place: Place, name: &str, value: &serde_json::Value) -> Result<Program, Refusal> {
    let missing = |place: Place| place.refuse("it is missing");
    let fields = Fields::read(place.clone(), value, &["program", "args"])?;
    let path = fields
        .parsed("program", executable)?
        .ok_or_else(|| missing(fields.place.field("program")))?;
    let args = fields.texts("args", TEMPLATE_ARGS_MAX)?;
    let template = match (KNOWN.contains(&name), args) {
        (true, None) => None,
        (true, Some(_)) => {
            let reason = format!("volnet knows how {name} is started; give it another name");
            return Err(place.field("args").refuse(reason));
        }
        (false, Some(args)) => Some(args.into_iter().map(String::from).collect()),
        (false, None) => return Err(missing(place.field("args"))),
    };
    Ok(Program { path, template })
}

/// An absolute path, or a bare name.
fn executable(text: &str) -> Result<String, String> {
    if text.contains('/') && !text.starts_with('/') {
        return Err(format!("{text:?} is neither an absolute path nor a bare name"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} holds a control character"));
    }
    Ok(text.into())
}
