//! The nodes of the subject tree and the arenas they live in.
//!
//! Nodes are named by 32-bit references instead of pointers: three bits say the kind, the rest is the
//! place in the arena of that kind. The kinds follow what subjects look like: decimal digits fill a
//! node of 10, hexadecimal ones a node of 16.
//!
//! # Invariant
//! A reference is made only by [`Slab::insert`] and forgotten when its slot is freed, so that every
//! reference that can be reached from the root is valid.

#![expect(
    clippy::indexing_slicing,
    reason = "references are made here and never outlive their slot"
)]

/// Longest prefix that one node holds; a longer one is a chain of nodes with one child each.
pub(super) const PREFIX_BYTES_MAX: usize = 15;

const INDEX_BITS: u32 = 29;
const INDEX_MASK: u32 = (1 << INDEX_BITS) - 1;

/// Names a node or a leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ref(u32);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Leaf,
    Node4,
    Node10,
    Node16,
    Node48,
    Node256,
}

impl Ref {
    pub(super) const NONE: Ref = Ref(u32::MAX);

    pub(super) fn new(kind: Kind, index: u32) -> Self {
        Self(((kind as u32) << INDEX_BITS) | (index & INDEX_MASK))
    }

    pub(super) fn is_none(self) -> bool {
        self == Self::NONE
    }

    pub(super) fn kind(self) -> Kind {
        match self.0 >> INDEX_BITS {
            0 => Kind::Leaf,
            1 => Kind::Node4,
            2 => Kind::Node10,
            3 => Kind::Node16,
            4 => Kind::Node48,
            _ => Kind::Node256,
        }
    }

    pub(super) fn index(self) -> usize {
        (self.0 & INDEX_MASK) as usize
    }
}

/// Bytes that every key below a node shares, after the byte that led to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    length: u8,
    bytes: [u8; PREFIX_BYTES_MAX],
}

impl Prefix {
    pub(super) fn new(text: &[u8]) -> Self {
        debug_assert!(text.len() <= PREFIX_BYTES_MAX);
        let mut bytes = [0; PREFIX_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        Self {
            length: text.len() as u8,
            bytes,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length as usize]
    }
}

/// The rest of a key behind the byte that led to its leaf.
#[derive(Debug)]
pub(super) enum Suffix {
    Inline(u8, [u8; 14]),
    // A thin pointer keeps the leaf small; long rests are rare.
    Heap(Box<Box<[u8]>>),
}

const _: () = assert!(size_of::<Suffix>() == 16);

impl Suffix {
    pub(super) fn new(text: &[u8]) -> Self {
        if text.len() <= 14 {
            let mut bytes = [0; 14];
            bytes[..text.len()].copy_from_slice(text);
            Self::Inline(text.len() as u8, bytes)
        } else {
            Self::Heap(Box::new(text.into()))
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline(length, bytes) => &bytes[..*length as usize],
            Self::Heap(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
pub(super) struct Leaf<V> {
    pub(super) suffix: Suffix,
    pub(super) value: V,
}

/// What every inner node has: the shared prefix, and the leaf of the key that ends right behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) prefix: Prefix,
    pub(super) end: Ref,
}

/// Up to `N` children, sorted by byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sorted<const N: usize> {
    pub(super) head: Head,
    length: u8,
    keys: [u8; N],
    children: [Ref; N],
}

const _: () = assert!(size_of::<Sorted<10>>() == 72);

impl<const N: usize> Sorted<N> {
    pub(super) fn new(head: Head) -> Self {
        Self {
            head,
            length: 0,
            keys: [0; N],
            children: [Ref::NONE; N],
        }
    }

    fn position(&self, byte: u8) -> Option<usize> {
        self.keys[..self.length as usize]
            .iter()
            .position(|&key| key == byte)
    }

    fn insert(&mut self, byte: u8, child: Ref) -> bool {
        let length = self.length as usize;
        if length == N {
            return false;
        }
        let at = self.keys[..length].partition_point(|&key| key < byte);
        self.keys.copy_within(at..length, at + 1);
        self.children.copy_within(at..length, at + 1);
        self.keys[at] = byte;
        self.children[at] = child;
        self.length += 1;
        true
    }

    fn remove(&mut self, byte: u8) {
        if let Some(at) = self.position(byte) {
            let length = self.length as usize;
            self.keys.copy_within(at + 1..length, at);
            self.children.copy_within(at + 1..length, at);
            self.length -= 1;
        }
    }
}

/// Up to 48 children behind an index by byte (0 is none, else place + 1).
#[derive(Clone, Debug)]
pub(super) struct Node48 {
    pub(super) head: Head,
    length: u8,
    index: [u8; 256],
    children: [Ref; 48],
}

impl Node48 {
    fn new(head: Head) -> Self {
        Self {
            head,
            length: 0,
            index: [0; 256],
            children: [Ref::NONE; 48],
        }
    }

    fn insert(&mut self, byte: u8, child: Ref) -> bool {
        let Some(at) = self.children.iter().position(|child| child.is_none()) else {
            return false;
        };
        self.children[at] = child;
        self.index[byte as usize] = at as u8 + 1;
        self.length += 1;
        true
    }

    fn remove(&mut self, byte: u8) {
        let at = std::mem::take(&mut self.index[byte as usize]);
        if at != 0 {
            self.children[at as usize - 1] = Ref::NONE;
            self.length -= 1;
        }
    }
}

/// A child for every byte.
#[derive(Clone, Debug)]
pub(super) struct Node256 {
    pub(super) head: Head,
    length: u16,
    children: [Ref; 256],
}

/// Slots of one kind, reused after they were freed. Grows by a quarter, so that little stays unused.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<T>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    fn insert(&mut self, value: T) -> u32 {
        if let Some(index) = self.free.pop() {
            self.slots[index as usize] = value;
            return index;
        }
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact((self.slots.len() / 4).max(4));
        }
        self.slots.push(value);
        (self.slots.len() - 1) as u32
    }

    fn free(&mut self, index: usize) {
        self.free.push(index as u32);
    }
}

/// All nodes of one tree.
#[derive(Debug)]
pub(super) struct Nodes<V> {
    leaves: Slab<Leaf<V>>,
    nodes4: Slab<Sorted<4>>,
    nodes10: Slab<Sorted<10>>,
    nodes16: Slab<Sorted<16>>,
    nodes48: Slab<Node48>,
    nodes256: Slab<Node256>,
}

impl<V> Default for Nodes<V> {
    fn default() -> Self {
        Self {
            leaves: Slab::default(),
            nodes4: Slab::default(),
            nodes10: Slab::default(),
            nodes16: Slab::default(),
            nodes48: Slab::default(),
            nodes256: Slab::default(),
        }
    }
}

impl<V: Default> Nodes<V> {
    pub(super) fn leaf(&self, at: Ref) -> &Leaf<V> {
        &self.leaves.slots[at.index()]
    }

    pub(super) fn leaf_mut(&mut self, at: Ref) -> &mut Leaf<V> {
        &mut self.leaves.slots[at.index()]
    }

    pub(super) fn new_leaf(&mut self, rest: &[u8]) -> Ref {
        Ref::new(
            Kind::Leaf,
            self.leaves.insert(Leaf {
                suffix: Suffix::new(rest),
                value: V::default(),
            }),
        )
    }

    pub(super) fn new_node(&mut self, prefix: &[u8]) -> Ref {
        let head = Head {
            prefix: Prefix::new(prefix),
            end: Ref::NONE,
        };
        Ref::new(Kind::Node4, self.nodes4.insert(Sorted::new(head)))
    }

    pub(super) fn free(&mut self, at: Ref) {
        let index = at.index();
        match at.kind() {
            Kind::Leaf => {
                self.leaves.slots[index].suffix = Suffix::new(&[]);
                self.leaves.free(index);
            }
            Kind::Node4 => self.nodes4.free(index),
            Kind::Node10 => self.nodes10.free(index),
            Kind::Node16 => self.nodes16.free(index),
            Kind::Node48 => self.nodes48.free(index),
            Kind::Node256 => self.nodes256.free(index),
        }
    }

    /// The head of an inner node.
    pub(super) fn head(&self, at: Ref) -> &Head {
        let index = at.index();
        match at.kind() {
            Kind::Leaf | Kind::Node4 => &self.nodes4.slots[index].head,
            Kind::Node10 => &self.nodes10.slots[index].head,
            Kind::Node16 => &self.nodes16.slots[index].head,
            Kind::Node48 => &self.nodes48.slots[index].head,
            Kind::Node256 => &self.nodes256.slots[index].head,
        }
    }

    pub(super) fn head_mut(&mut self, at: Ref) -> &mut Head {
        let index = at.index();
        match at.kind() {
            Kind::Leaf | Kind::Node4 => &mut self.nodes4.slots[index].head,
            Kind::Node10 => &mut self.nodes10.slots[index].head,
            Kind::Node16 => &mut self.nodes16.slots[index].head,
            Kind::Node48 => &mut self.nodes48.slots[index].head,
            Kind::Node256 => &mut self.nodes256.slots[index].head,
        }
    }

    pub(super) fn length(&self, at: Ref) -> usize {
        let index = at.index();
        match at.kind() {
            Kind::Leaf => 0,
            Kind::Node4 => self.nodes4.slots[index].length as usize,
            Kind::Node10 => self.nodes10.slots[index].length as usize,
            Kind::Node16 => self.nodes16.slots[index].length as usize,
            Kind::Node48 => self.nodes48.slots[index].length as usize,
            Kind::Node256 => self.nodes256.slots[index].length as usize,
        }
    }

    pub(super) fn child(&self, at: Ref, byte: u8) -> Ref {
        fn sorted<const N: usize>(node: &Sorted<N>, byte: u8) -> Ref {
            node.position(byte)
                .map_or(Ref::NONE, |at| node.children[at])
        }
        let index = at.index();
        match at.kind() {
            Kind::Leaf => Ref::NONE,
            Kind::Node4 => sorted(&self.nodes4.slots[index], byte),
            Kind::Node10 => sorted(&self.nodes10.slots[index], byte),
            Kind::Node16 => sorted(&self.nodes16.slots[index], byte),
            Kind::Node48 => {
                let node = &self.nodes48.slots[index];
                match node.index[byte as usize] {
                    0 => Ref::NONE,
                    place => node.children[place as usize - 1],
                }
            }
            Kind::Node256 => self.nodes256.slots[index].children[byte as usize],
        }
    }

    /// Points an existing child at another node.
    pub(super) fn set_child(&mut self, at: Ref, byte: u8, child: Ref) {
        fn sorted<const N: usize>(node: &mut Sorted<N>, byte: u8, child: Ref) {
            if let Some(at) = node.position(byte) {
                node.children[at] = child;
            }
        }
        let index = at.index();
        match at.kind() {
            Kind::Leaf => {}
            Kind::Node4 => sorted(&mut self.nodes4.slots[index], byte, child),
            Kind::Node10 => sorted(&mut self.nodes10.slots[index], byte, child),
            Kind::Node16 => sorted(&mut self.nodes16.slots[index], byte, child),
            Kind::Node48 => {
                let node = &mut self.nodes48.slots[index];
                if let place @ 1.. = node.index[byte as usize] {
                    node.children[place as usize - 1] = child;
                }
            }
            Kind::Node256 => self.nodes256.slots[index].children[byte as usize] = child,
        }
    }

    fn insert_into(&mut self, at: Ref, byte: u8, child: Ref) -> bool {
        let index = at.index();
        match at.kind() {
            Kind::Leaf => false,
            Kind::Node4 => self.nodes4.slots[index].insert(byte, child),
            Kind::Node10 => self.nodes10.slots[index].insert(byte, child),
            Kind::Node16 => self.nodes16.slots[index].insert(byte, child),
            Kind::Node48 => self.nodes48.slots[index].insert(byte, child),
            Kind::Node256 => {
                let node = &mut self.nodes256.slots[index];
                node.children[byte as usize] = child;
                node.length += 1;
                true
            }
        }
    }

    /// Adds a child that is not there yet; the node may move to a larger kind, the answer is where it is now.
    pub(super) fn add_child(&mut self, at: Ref, byte: u8, child: Ref) -> Ref {
        if self.insert_into(at, byte, child) {
            return at;
        }
        let larger = match at.kind() {
            Kind::Leaf | Kind::Node4 => Kind::Node10,
            Kind::Node10 => Kind::Node16,
            Kind::Node16 => Kind::Node48,
            Kind::Node48 | Kind::Node256 => Kind::Node256,
        };
        let moved = self.change_kind(at, larger);
        self.insert_into(moved, byte, child);
        moved
    }

    /// Removes a child; the node may move to a smaller kind, the answer is where it is now.
    pub(super) fn remove_child(&mut self, at: Ref, byte: u8) -> Ref {
        let index = at.index();
        match at.kind() {
            Kind::Leaf => {}
            Kind::Node4 => self.nodes4.slots[index].remove(byte),
            Kind::Node10 => self.nodes10.slots[index].remove(byte),
            Kind::Node16 => self.nodes16.slots[index].remove(byte),
            Kind::Node48 => self.nodes48.slots[index].remove(byte),
            Kind::Node256 => {
                let node = &mut self.nodes256.slots[index];
                node.children[byte as usize] = Ref::NONE;
                node.length -= 1;
            }
        }
        // Well below the smaller kind's room, so that a node at the border does not move to and fro.
        match (at.kind(), self.length(at)) {
            (Kind::Node10, 0..=3) => self.change_kind(at, Kind::Node4),
            (Kind::Node16, 0..=8) => self.change_kind(at, Kind::Node10),
            (Kind::Node48, 0..=12) => self.change_kind(at, Kind::Node16),
            (Kind::Node256, 0..=40) => self.change_kind(at, Kind::Node48),
            _ => at,
        }
    }

    fn change_kind(&mut self, at: Ref, kind: Kind) -> Ref {
        let head = *self.head(at);
        let moved = Ref::new(
            kind,
            match kind {
                Kind::Leaf | Kind::Node4 => self.nodes4.insert(Sorted::new(head)),
                Kind::Node10 => self.nodes10.insert(Sorted::new(head)),
                Kind::Node16 => self.nodes16.insert(Sorted::new(head)),
                Kind::Node48 => self.nodes48.insert(Node48::new(head)),
                Kind::Node256 => self.nodes256.insert(Node256 {
                    head,
                    length: 0,
                    children: [Ref::NONE; 256],
                }),
            },
        );
        let mut place = 0;
        while let Some((byte, child)) = self.child_from(at, &mut place) {
            self.insert_into(moved, byte, child);
        }
        self.free(at);
        moved
    }

    /// The next child in byte order; `place` starts at 0 and is moved on.
    pub(super) fn child_from(&self, at: Ref, place: &mut u16) -> Option<(u8, Ref)> {
        fn sorted<const N: usize>(node: &Sorted<N>, place: &mut u16) -> Option<(u8, Ref)> {
            let at = *place as usize;
            if at >= node.length as usize {
                return None;
            }
            *place += 1;
            Some((node.keys[at], node.children[at]))
        }
        let index = at.index();
        match at.kind() {
            Kind::Leaf => None,
            Kind::Node4 => sorted(&self.nodes4.slots[index], place),
            Kind::Node10 => sorted(&self.nodes10.slots[index], place),
            Kind::Node16 => sorted(&self.nodes16.slots[index], place),
            Kind::Node48 | Kind::Node256 => {
                while *place < 256 {
                    let byte = *place as u8;
                    *place += 1;
                    let child = self.child(at, byte);
                    if !child.is_none() {
                        return Some((byte, child));
                    }
                }
                None
            }
        }
    }
}
