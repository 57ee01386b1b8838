//! Filters of a link, of which those of its ingress say what becomes of all that it receives:
//! `struct tcmsg`, `TCA_U32_*` (linux/pkt_cls.h), `TCA_ACT_*` and `TCA_MIRRED_*`
//! (linux/tc_act/tc_mirred.h).
//!
//! volnet knows one: whatever comes is sent by another link. It is a `u32` that matches everything,
//! because other programs of this field make the same one and look for it
//! (awslabs/tc-redirect-tap), and `matchall` is not in every kernel.

use neli::consts::rtnl::{Rtm, Tca};

use super::qdisc::begin;
use crate::netlink::Error;
use crate::netlink::attr::{Attr, Attrs};
use crate::netlink::message::{ACK, CREATE, DUMP, EXCL, REQUEST, array_at, u32_at};
use crate::netlink::writer::Writer;

/// Bytes of `struct tcmsg`: family, padding, index, handle, parent, info.
const HEADER: usize = 20;
/// The handle of every ingress queueing discipline, `ffff:`, which its filters have as parent.
pub const INGRESS: u32 = 0xffff_0000;
/// The priority of the filter, in the upper half of `info`.
const PRIORITY: u32 = 1 << 16;
/// `ETH_P_ALL` (linux/if_ether.h) in network byte order, the lower half of `info`.
const ALL_PROTOCOLS: u32 = (0x0003_u16).to_be() as u32;

const KIND_U32: &str = "u32";
// TCA_U32_*: linux/pkt_cls.h.
const U32_SELECTOR: u16 = 5;
const U32_ACTIONS: u16 = 7;
/// The place of the first action in its list (linux/pkt_cls.h: the type is the order).
const FIRST: u16 = 1;
// TCA_ACT_*: linux/pkt_cls.h.
const ACTION_KIND: u16 = 1;
const ACTION_OPTIONS: u16 = 2;
const KIND_MIRRED: &str = "mirred";
/// `TCA_MIRRED_PARMS`: linux/tc_act/tc_mirred.h.
const MIRRED_PARMS: u16 = 2;

/// `struct tc_u32_sel` with one `struct tc_u32_key` (linux/pkt_cls.h): no bit has to match, and a
/// match is final (`TC_U32_TERMINAL`).
const SELECTOR: [u8; 32] = {
    let mut selector = [0; 32];
    (selector[0], selector[2]) = (1, 1);
    selector
};

/// Bytes of `struct tc_mirred`: index, capabilities, action, references, bindings, kind, link.
const MIRRED_BYTES: usize = 28;
const MIRRED_ACTION_AT: usize = 8;
const MIRRED_KIND_AT: usize = 20;
const MIRRED_LINK_AT: usize = 24;
/// `TC_ACT_STOLEN` (linux/pkt_cls.h): nobody else sees it.
const STOLEN: u32 = 4;
/// `TCA_EGRESS_REDIR` (linux/tc_act/tc_mirred.h): the other link sends it.
const REDIRECT: u32 = 1;

/// Asks for the filters of what a link receives.
pub fn dump(writer: &mut Writer, sequence: u32, index: u32) {
    let open = begin(writer, Rtm::Gettfilter, REQUEST | DUMP, sequence, index, [0, INGRESS, 0]);
    writer.close_message(open);
}

/// Sends all that a link receives by another. The link has an ingress queueing discipline
/// ([`super::qdisc::ingress`]).
pub fn redirect(writer: &mut Writer, sequence: u32, index: u32, to: u32) {
    let flags = REQUEST | CREATE | EXCL | ACK;
    let info = PRIORITY | ALL_PROTOCOLS;
    let open = begin(writer, Rtm::Newtfilter, flags, sequence, index, [0, INGRESS, info]);
    writer.attr_text(Tca::Kind.into(), KIND_U32);
    let options = writer.nest(Tca::Options.into());
    let actions = writer.nest(U32_ACTIONS);
    let action = writer.nest(FIRST);
    writer.attr_text(ACTION_KIND, KIND_MIRRED);
    let of_action = writer.nest(ACTION_OPTIONS);
    let mut mirred = [0; MIRRED_BYTES];
    for (at, value) in
        [(MIRRED_ACTION_AT, STOLEN), (MIRRED_KIND_AT, REDIRECT), (MIRRED_LINK_AT, to)]
    {
        mirred[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    writer.attr(MIRRED_PARMS, &mirred);
    writer.close(of_action);
    writer.close(action);
    writer.close(actions);
    writer.attr(U32_SELECTOR, &SELECTOR);
    writer.close(options);
    writer.close_message(open);
}

/// Reads the payload of `RTM_NEWTFILTER`: the index of the link that sends what this filter is
/// about; `None` if the filter does something else.
pub fn redirected(payload: &[u8]) -> Result<Option<u32>, Error> {
    array_at::<HEADER>(payload, 0)?;
    let (mut is_u32, mut options) = (false, None);
    for attr in Attrs::new(&payload[HEADER..]) {
        let attr = attr?;
        match attr.kind {
            _ if attr.is(Tca::Kind) => is_u32 = attr.string() == KIND_U32.as_bytes(),
            _ if attr.is(Tca::Options) => options = Some(attr),
            _ => {}
        }
    }
    let Some(options) = options.filter(|_| is_u32) else { return Ok(None) };
    let Some(actions) = part(options, U32_ACTIONS)? else { return Ok(None) };
    let Some(action) = part(actions, FIRST)? else { return Ok(None) };
    let is_mirred =
        part(action, ACTION_KIND)?.is_some_and(|kind| kind.string() == KIND_MIRRED.as_bytes());
    let Some(of_action) = part(action, ACTION_OPTIONS)?.filter(|_| is_mirred) else {
        return Ok(None);
    };
    let Some(mirred) = part(of_action, MIRRED_PARMS)? else { return Ok(None) };
    array_at::<MIRRED_BYTES>(mirred.value, 0)?;
    let redirects = u32_at(mirred.value, MIRRED_KIND_AT)? == REDIRECT;
    Ok(redirects.then_some(u32_at(mirred.value, MIRRED_LINK_AT)?))
}

fn part(of: Attr<'_>, kind: u16) -> Result<Option<Attr<'_>>, Error> {
    for attr in of.nested()? {
        let attr = attr?;
        if attr.kind == kind {
            return Ok(Some(attr));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::message::Messages;

    fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::new();
        write(&mut writer);
        let message = Messages::new(writer.finish().unwrap()).next().unwrap().unwrap();
        message.payload.to_vec()
    }

    #[test]
    fn a_redirect_is_read_as_it_was_written() {
        let payload = written(|writer| redirect(writer, 1, 7, 9));
        assert_eq!(redirected(&payload), Ok(Some(9)));
    }

    #[test]
    fn what_is_no_redirect_is_none_and_what_is_cut_is_an_error() {
        let of = |kind: &'static str, options: &'static [u8]| {
            written(|writer| {
                let open = begin(writer, Rtm::Newtfilter, 0, 1, 7, [0, INGRESS, 0]);
                writer.attr(Tca::Options.into(), options);
                writer.attr_text(Tca::Kind.into(), kind);
                writer.close_message(open);
            })
        };
        assert_eq!(redirected(&of("flower", &[1, 2, 3])), Ok(None));
        assert_eq!(redirected(&of("u32", &[])), Ok(None));
        assert_eq!(redirected(&of("u32", &[1, 2, 3])), Err(Error::Truncated));
        assert_eq!(redirected(&[0; 19]), Err(Error::Truncated));
        assert_eq!(redirected(&[0; 20]), Ok(None));
    }
}
