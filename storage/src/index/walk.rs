//! Walking the subject tree under a filter.
//!
//! Every pattern of the filter is a position that moves as the walk goes down, byte by byte. A subtree
//! in which no pattern can match any more is not entered; one in which a `>` has been reached is listed
//! without further comparing. The stack is explicit: the depth of the tree is a matter of the subjects.

use super::node::{Kind, Ref};
use super::tree::{SubjectId, SubjectTree};
use crate::filter::Filter;

/// How far one pattern has matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// The byte at this offset of the pattern comes next.
    Literal(usize),
    /// Inside the token that a `*` stands for; the pattern goes on at this offset.
    Star(usize),
    /// A `>` was reached: all that follows matches.
    Rest,
    /// Cannot match any more.
    Dead,
}

fn wildcard_at(pattern: &[u8], at: usize, wildcard: u8) -> bool {
    let starts = at == 0 || pattern.get(at - 1) == Some(&b'.');
    starts
        && pattern.get(at) == Some(&wildcard)
        && matches!(pattern.get(at + 1), None | Some(&b'.'))
}

impl Position {
    fn at(pattern: &[u8], at: usize) -> Self {
        if wildcard_at(pattern, at, b'>') {
            Self::Rest
        } else if wildcard_at(pattern, at, b'*') {
            Self::Star(at + 1)
        } else {
            Self::Literal(at)
        }
    }

    fn step(self, pattern: &[u8], byte: u8) -> Self {
        match self {
            Self::Literal(at) if pattern.get(at) == Some(&byte) => Self::at(pattern, at + 1),
            Self::Star(at) if byte != b'.' => Self::Star(at),
            Self::Star(at) if at < pattern.len() => Self::at(pattern, at + 1),
            Self::Rest => Self::Rest,
            _ => Self::Dead,
        }
    }

    fn accepts_end(self, pattern: &[u8]) -> bool {
        match self {
            Self::Literal(at) | Self::Star(at) => at == pattern.len(),
            Self::Rest => true,
            Self::Dead => false,
        }
    }
}

/// The positions of all patterns at one place of the tree, stacked for every level of the walk.
struct Positions<'a> {
    patterns: Vec<&'a [u8]>,
    stack: Vec<Position>,
}

impl<'a> Positions<'a> {
    fn new(filter: &'a Filter) -> Self {
        let patterns: Vec<&[u8]> = filter.patterns().iter().map(|p| p.as_bytes()).collect();
        let stack = patterns
            .iter()
            .map(|pattern| Position::at(pattern, 0))
            .collect();
        Self { patterns, stack }
    }

    fn top(&self) -> &[Position] {
        let start = self.stack.len().saturating_sub(self.patterns.len());
        self.stack.get(start..).unwrap_or_default()
    }

    /// Moves the top positions over `bytes`; `false` when nothing can match any more.
    fn advance(&mut self, bytes: &[u8]) -> bool {
        let start = self.stack.len().saturating_sub(self.patterns.len());
        let mut alive = false;
        for (position, pattern) in self.stack.iter_mut().skip(start).zip(&self.patterns) {
            for &byte in bytes {
                *position = position.step(pattern, byte);
                if matches!(position, Position::Dead | Position::Rest) {
                    break;
                }
            }
            alive |= *position != Position::Dead;
        }
        alive
    }

    fn accepts_end(&self) -> bool {
        self.top()
            .iter()
            .zip(&self.patterns)
            .any(|(position, pattern)| position.accepts_end(pattern))
    }

    /// The only byte that can come next, when there is only one.
    fn forced_byte(&self) -> Option<u8> {
        let mut alive = self
            .top()
            .iter()
            .zip(&self.patterns)
            .filter(|(position, _)| **position != Position::Dead);
        match (alive.next(), alive.next()) {
            (Some((Position::Literal(at), pattern)), None) => pattern.get(*at).copied(),
            _ => None,
        }
    }

    fn push(&mut self) {
        let start = self.stack.len().saturating_sub(self.patterns.len());
        self.stack.extend_from_within(start..);
    }

    fn pop(&mut self) {
        let start = self.stack.len().saturating_sub(self.patterns.len());
        self.stack.truncate(start);
    }
}

struct Frame {
    node: Ref,
    place: u16,
    path_length: usize,
}

/// Calls `visit` for every subject of `tree` that matches `filter`, in byte order.
pub(super) fn walk<V: Default>(
    tree: &SubjectTree<V>,
    filter: &Filter,
    visit: &mut dyn FnMut(&[u8], SubjectId, &V) -> bool,
) {
    let nodes = &tree.nodes;
    let mut positions = Positions::new(filter);
    let mut path: Vec<u8> = Vec::with_capacity(64);
    let mut frames: Vec<Frame> = Vec::with_capacity(16);
    let mut entering = tree.root;
    loop {
        if !entering.is_none() {
            // The positions of the entered node are on top of the stack.
            if entering.kind() == Kind::Leaf {
                let leaf = nodes.leaf(entering);
                let suffix = leaf.suffix.as_bytes();
                if positions.advance(suffix) && positions.accepts_end() {
                    let length = path.len();
                    path.extend_from_slice(suffix);
                    if !visit(&path, SubjectId(entering), &leaf.value) {
                        return;
                    }
                    path.truncate(length);
                }
                positions.pop();
            } else {
                let head = nodes.head(entering);
                let prefix = head.prefix.as_bytes();
                if positions.advance(prefix) {
                    path.extend_from_slice(prefix);
                    if !head.end.is_none()
                        && positions.accepts_end()
                        && !visit(&path, SubjectId(head.end), &nodes.leaf(head.end).value)
                    {
                        return;
                    }
                    frames.push(Frame {
                        node: entering,
                        place: 0,
                        path_length: path.len(),
                    });
                } else {
                    positions.pop();
                }
            }
        }
        let Some(frame) = frames.last_mut() else {
            return;
        };
        path.truncate(frame.path_length);
        let next = match positions.forced_byte() {
            // One look-up instead of a pass over the children; the frame is then done.
            Some(byte) if frame.place == 0 => {
                frame.place = u16::MAX;
                Some((byte, nodes.child(frame.node, byte))).filter(|(_, child)| !child.is_none())
            }
            Some(_) => None,
            None => nodes.child_from(frame.node, &mut frame.place),
        };
        match next {
            Some((byte, child)) => {
                positions.push();
                if positions.advance(&[byte]) {
                    path.push(byte);
                    entering = child;
                } else {
                    positions.pop();
                    entering = Ref::NONE;
                }
            }
            None => {
                frames.pop();
                positions.pop();
                entering = Ref::NONE;
            }
        }
    }
}
