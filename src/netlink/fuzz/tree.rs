//! Well-formed attributes from any bytes.
//!
//! A byte says what comes: 0 ends a level; the lowest six bits are a type, the highest says that
//! attributes are nested in it. A value has its length in the byte that follows, of which six bits
//! count.

use crate::fuzz::Choices;
use crate::netlink::Error;
use crate::netlink::attr::{Attrs, DEPTH_MAX};
use crate::netlink::writer::Writer;

const NESTED: u8 = 0x80;
const KIND: u8 = 0x3f;
const LENGTH: u8 = 0x3f;

/// The attributes of one level.
pub(super) struct Tree<'a>(Vec<(u16, Node<'a>)>);

enum Node<'a> {
    Value(&'a [u8]),
    Nest(Tree<'a>),
}

impl<'a> Tree<'a> {
    /// Reads a level to its end. It goes one deeper than can be read.
    pub(super) fn read(choices: &mut Choices<'a>) -> Tree<'a> {
        Tree::level(choices, 0)
    }

    fn level(choices: &mut Choices<'a>, depth: usize) -> Tree<'a> {
        let mut attrs = Vec::new();
        loop {
            let tag = choices.byte();
            let node = match tag {
                0 => return Tree(attrs),
                NESTED.. if depth < DEPTH_MAX => Node::Nest(Tree::level(choices, depth + 1)),
                _ => Node::Value(value(choices)),
            };
            attrs.push((u16::from(tag & KIND), node));
        }
    }

    /// Writes it into an open message or attribute.
    pub(super) fn write(&self, writer: &mut Writer) {
        for (kind, node) in &self.0 {
            match node {
                Node::Value(value) => writer.attr(*kind, value),
                Node::Nest(tree) => {
                    let open = writer.nest(*kind);
                    tree.write(writer);
                    writer.close(open);
                }
            }
        }
    }

    /// Panics unless these are the attributes that were written.
    pub(super) fn check(&self, mut attrs: Attrs<'_>) {
        for (kind, node) in &self.0 {
            let attr = attrs.next().expect("it was written").expect("it is well-formed");
            assert_eq!(attr.kind, *kind);
            match (node, attr.nested()) {
                (Node::Value(value), _) => assert_eq!(attr.value, *value),
                (Node::Nest(tree), Ok(inner)) => tree.check(inner),
                (Node::Nest(_), Err(error)) => assert_eq!(error, Error::TooDeep),
            }
        }
        assert!(attrs.next().is_none());
    }

    /// The first attribute of a type: its value, or `Err` where attributes are nested in it.
    pub(super) fn first(&self, wanted: u16) -> Option<Result<&'a [u8], ()>> {
        let (_, node) = self.0.iter().find(|(kind, _)| *kind == wanted)?;
        Some(match node {
            Node::Value(value) => Ok(value),
            Node::Nest(_) => Err(()),
        })
    }
}

fn value<'a>(choices: &mut Choices<'a>) -> &'a [u8] {
    let length = choices.byte() & LENGTH;
    choices.bytes(length.into())
}
