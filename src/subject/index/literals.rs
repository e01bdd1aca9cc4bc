//! The literal tokens that may stand in one place: a short list while they are few, a hash table when they are many.
//!
//! Most places have one token behind them. A table for each of those would take several times what the entries take.

use hashbrown::HashMap;

/// More tokens than this are kept in a table.
const FEW_MAX: usize = 8;
/// A table with fewer becomes a list again; well below, so that a token that comes and goes does not rebuild it each time.
const MANY_MIN: usize = 4;

/// Values by token.
#[derive(Debug)]
pub(super) enum Literals<V> {
    Few(Vec<(Box<[u8]>, V)>),
    Many(HashMap<Box<[u8]>, V>),
}

impl<V> Default for Literals<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V> Literals<V> {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Few(list) => list.is_empty(),
            Self::Many(table) => table.is_empty(),
        }
    }

    pub(super) fn get(&self, token: &[u8]) -> Option<&V> {
        match self {
            Self::Few(list) => list
                .iter()
                .find(|(known, _)| &**known == token)
                .map(|(_, value)| value),
            Self::Many(table) => table.get(token),
        }
    }

    pub(super) fn get_mut(&mut self, token: &[u8]) -> Option<&mut V> {
        match self {
            Self::Few(list) => list
                .iter_mut()
                .find(|(known, _)| &**known == token)
                .map(|(_, value)| value),
            Self::Many(table) => table.get_mut(token),
        }
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        let (list, table) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(table) => (None, Some(table)),
        };
        let listed = list.into_iter().flatten().map(|(_, value)| value);
        listed.chain(table.into_iter().flat_map(HashMap::values))
    }

    pub(super) fn remove(&mut self, token: &[u8]) {
        match self {
            Self::Few(list) => {
                list.retain(|(known, _)| &**known != token);
                list.shrink_to_fit();
            }
            Self::Many(table) => {
                table.remove(token);
                if table.len() < MANY_MIN {
                    *self = Self::Few(table.drain().collect());
                } else if table.len() * 4 < table.capacity() {
                    table.shrink_to(table.len() * 2);
                }
            }
        }
    }
}

impl<V: Default> Literals<V> {
    pub(super) fn get_or_insert_default(&mut self, token: &[u8]) -> &mut V {
        if let Self::Few(list) = self
            && list.len() >= FEW_MAX
            && !list.iter().any(|(known, _)| &**known == token)
        {
            *self = Self::Many(list.drain(..).collect());
        }
        match self {
            Self::Many(table) => table.entry(token.into()).or_default(),
            Self::Few(list) => {
                let known = list.iter().position(|(known, _)| &**known == token);
                let at = known.unwrap_or_else(|| {
                    if list.is_empty() {
                        list.reserve_exact(1);
                    }
                    list.push((token.into(), V::default()));
                    list.len() - 1
                });
                value_at(list, at)
            }
        }
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the position was found in this very list"
)]
fn value_at<V>(list: &mut [(Box<[u8]>, V)], at: usize) -> &mut V {
    &mut list[at].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_table_and_a_list_again() {
        let mut literals: Literals<u32> = Literals::default();
        let tokens: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        for (number, token) in (0..).zip(&tokens) {
            *literals.get_or_insert_default(token.as_bytes()) = number;
            *literals.get_or_insert_default(token.as_bytes()) += 100;
        }
        assert!(matches!(literals, Literals::Many(_)));
        assert_eq!(literals.values().count(), tokens.len());
        for (number, token) in (0..).zip(&tokens) {
            assert_eq!(literals.get(token.as_bytes()), Some(&(number + 100)));
            assert!(literals.get_mut(token.as_bytes()).is_some());
            literals.remove(token.as_bytes());
            assert_eq!(literals.get(token.as_bytes()), None);
            let left = tokens.len() - number as usize - 1;
            assert_eq!(literals.values().count(), left);
        }
        assert!(literals.is_empty() && matches!(literals, Literals::Few(_)));
    }
}
