//! The policies of the settings, in addition to the built-in ones.

use super::source::Sources;
use crate::model::error::Refusal;
use crate::model::net::NetworkConfig;
use crate::model::policy::{POLICIES_MAX, Policy, PolicyRule, RULES_MAX};
use crate::spec::fields::{Place, texts};

/// The policies of the file. If a network names a policy, it must exist.
pub(super) fn resolve(
    sources: &Sources,
    networks: &[NetworkConfig],
) -> Result<Vec<Policy>, Refusal> {
    let described = sources.file.entries("policies")?;
    if described.len() > POLICIES_MAX {
        let reason = format!("at most {POLICIES_MAX} policies are allowed");
        return Err(sources.file.place.field("policies").refuse(reason));
    }
    let mut all = Policy::built_in();
    let built_in = all.len();
    for (place, name, value) in described {
        Policy::check_name(name).map_err(|reason| place.refuse(reason))?;
        if all.iter().any(|policy| policy.name == name) {
            return Err(place.refuse(format!("{name} is a built-in policy")));
        }
        let rules = texts(&place, value, RULES_MAX)?;
        let rule = |(place, text): (_, &str)| read(&place, text);
        let rules = rules.into_iter().map(rule).collect::<Result<_, _>>()?;
        all.push(Policy { name: name.into(), rules });
    }
    let known = |name: &str| all.iter().any(|policy| policy.name == name);
    if let Some(network) = networks.iter().find(|network| !known(network.traffic().policy)) {
        let reason =
            format!("network {}: there is no policy {:?}", network.name, network.traffic().policy);
        return Err(sources.file.place.field("networks").refuse(reason));
    }
    Ok(all.split_off(built_in))
}

fn read(place: &Place, text: &str) -> Result<PolicyRule, Refusal> {
    text.parse().map_err(|reason: String| place.refuse(reason))
}
