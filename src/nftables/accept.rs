//! Our accept rules in chains of the tables `ip filter` and `ip6 filter`, which are not ours.
//!
//! Docker and others drop forwarded packets by the policy of `FORWARD`, and an accept in another
//! table does not overrule that. So one rule for each direction of each bridge goes to the head of
//! `DOCKER-USER`, or of `FORWARD`, in each family that the network has. The rule has one comparison
//! and a verdict, because iptables cannot list a chain with other rules that it did not write
//! itself.

use super::encode::LINK_BYTES;
use crate::model::name::check_link_name;
use crate::netlink::nft::expression::{self, Code, Compare, Expression, Meta, REG32_FIRST};
use crate::netlink::nft::object::{self, At, Mark, NewRule, RuleMessage};
use crate::netlink::nft::{FAMILY_IP, FAMILY_IP6};
use crate::netlink::writer::Writer;
use crate::nftables::number;
use crate::plan::ruleset::{Accept, Direction, Family};

/// The table of iptables and of ip6tables.
pub const FILTER: &str = "filter";
/// The chains for the rules. The first that exists is used.
pub const CHAINS: [&str; 2] = ["DOCKER-USER", "FORWARD"];
/// The families that have such a table.
pub const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
/// The mark of our rules.
const COMMENT: &str = "volnet";

/// Writes the rule.
pub fn write(writer: &mut Writer, sequence: u32, accept: &Accept) {
    let new = NewRule {
        family: number(accept.family),
        table: FILTER,
        chain: &accept.chain,
        at: At::Head,
        mark: Mark::Comment(COMMENT),
    };
    object::new_rule(writer, sequence, &new, |writer| {
        let mut name = [0; LINK_BYTES];
        name[..accept.bridge.len()].copy_from_slice(accept.bridge.as_bytes());
        expression::meta(writer, meta_of(accept.direction), REG32_FIRST);
        expression::compare(writer, REG32_FIRST, Compare::Equal, &name);
        expression::verdict(writer, Code::Accept);
    });
}

/// Writes the removal of a rule.
pub fn delete(writer: &mut Writer, sequence: u32, accept: &Accept, handle: u64) {
    object::delete_rule(writer, sequence, (number(accept.family), FILTER, &accept.chain), handle);
}

/// Reads a rule as one of ours: in the form of [`write()`], or in the form of `iptables-restore`
/// after `iptables-save`, which has a counter, and the comment in a match. A rule with other
/// contents is not ours, whatever its comment.
pub fn read(rule: &RuleMessage<'_>) -> Result<Option<Accept>, crate::netlink::Error> {
    let family = match rule.family {
        FAMILY_IP => Family::Ip,
        FAMILY_IP6 => Family::Ip6,
        _ => return Ok(None),
    };
    if rule.table != FILTER.as_bytes() {
        return Ok(None);
    }
    let (mut comment, mut accepts) = (rule.comment(), false);
    let (mut direction, mut bridge) = (None, None);
    for expression in rule.expressions() {
        match expression? {
            Expression::LinkName(Meta::InName) if direction.is_none() => {
                direction = Some(Direction::In);
            }
            Expression::LinkName(Meta::OutName) if direction.is_none() => {
                direction = Some(Direction::Out);
            }
            expression @ Expression::Equals(_) => bridge = expression.matched_link(),
            Expression::Comment(text) => comment = Some(text),
            Expression::Neutral => {}
            Expression::Accept => accepts = true,
            Expression::LinkName(_)
            | Expression::InSet(_)
            | Expression::Drop
            | Expression::DestinationPort
            | Expression::Redirect
            | Expression::Other => return Ok(None),
        }
    }
    if !accepts || comment != Some(COMMENT.as_bytes()) {
        return Ok(None);
    }
    let bridge = bridge.and_then(|name| std::str::from_utf8(name).ok());
    let bridge = bridge.filter(|name| check_link_name(name).is_ok());
    let (Some(direction), Some(bridge), Ok(chain)) =
        (direction, bridge, std::str::from_utf8(rule.chain))
    else {
        return Ok(None);
    };
    Ok(Some(Accept { family, chain: chain.into(), bridge: bridge.into(), direction }))
}

fn meta_of(direction: Direction) -> Meta {
    match direction {
        Direction::In => Meta::InName,
        Direction::Out => Meta::OutName,
    }
}
