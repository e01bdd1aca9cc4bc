//! Replicas of this server that are of no use any more, until others have taken their places.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use raft::group::GroupNumber;
use raft::types::NodeId;

/// A group's replica on this server is replaced so often in one run. What goes wrong more often than that is for somebody to look at.
const REPLACED_MAX: u32 = 3;

/// What is known of them.
#[derive(Default)]
pub(super) struct Repairs {
    known: Mutex<BTreeMap<GroupNumber, Repair>>,
}

struct Repair {
    /// The stream, as it is called in texts.
    stream: String,
    /// The id of the replica that is of no use.
    node: NodeId,
    reason: String,
    /// What it held is kept under this name.
    place: Option<String>,
    /// How many replicas of the group were of no use in this run.
    times: u32,
    is_open: bool,
}

impl Repairs {
    /// The replica of that id is of no use. Says whether that is new.
    pub fn begin(&self, group: GroupNumber, stream: String, node: NodeId, reason: &str) -> bool {
        let mut known = self.known.lock();
        let before = known.get(&group);
        if before.is_some_and(|repair| repair.node == node) {
            return false;
        }
        let times = before.map_or(0, |repair| repair.times) + 1;
        let repair = Repair {
            stream,
            node,
            reason: reason.to_owned(),
            place: None,
            times,
            is_open: true,
        };
        known.insert(group, repair);
        true
    }

    /// Whether it was replaced too often already.
    pub fn is_hopeless(&self, group: GroupNumber) -> bool {
        let known = self.known.lock();
        known
            .get(&group)
            .is_some_and(|repair| repair.times > REPLACED_MAX)
    }

    /// Why the replica is of no use.
    pub fn reason(&self, group: GroupNumber) -> Option<String> {
        let known = self.known.lock();
        known.get(&group).map(|repair| repair.reason.clone())
    }

    /// What it held is kept under that name.
    pub fn kept(&self, group: GroupNumber, place: &str) {
        if let Some(repair) = self.known.lock().get_mut(&group) {
            repair.place = Some(place.to_owned());
        }
    }

    /// Those that nothing has taken the place of yet.
    pub fn open(&self) -> Vec<(GroupNumber, NodeId)> {
        let known = self.known.lock();
        let open = known.iter().filter(|(_, repair)| repair.is_open);
        open.map(|(group, repair)| (*group, repair.node)).collect()
    }

    /// Another replica has taken its place, or none is to be here. Says of which stream it is.
    pub fn end(&self, group: GroupNumber) -> Option<String> {
        let mut known = self.known.lock();
        let repair = known.get_mut(&group).filter(|repair| repair.is_open)?;
        repair.is_open = false;
        Some(repair.stream.clone())
    }

    /// What there is to be said of the first that is open.
    pub fn first(&self) -> Option<String> {
        let known = self.known.lock();
        let repair = known.values().find(|repair| repair.is_open)?;
        let kept = match &repair.place {
            Some(place) => format!(", what it held is kept as {place}"),
            None => String::new(),
        };
        let what = match repair.times > REPLACED_MAX {
            true => "was replaced too often and stays as it is",
            false => "is being replaced",
        };
        Some(format!(
            "JetStream stream '{}': this server's replica {what}{kept}: {}",
            repair.stream, repair.reason
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_is_told_until_it_ends_and_not_tried_for_ever() {
        let repairs = Repairs::default();
        let group = GroupNumber(7);
        let begin = |node| repairs.begin(group, "A > S".to_owned(), node, "it differs");
        assert_eq!(repairs.first(), None);
        assert!(begin(1) && !begin(1));
        repairs.kept(group, "0011");
        let told = "JetStream stream 'A > S': this server's replica is being replaced, what it held is kept as 0011: it differs";
        assert_eq!(repairs.first().as_deref(), Some(told));
        assert_eq!(repairs.open(), [(group, 1)]);
        assert_eq!(repairs.end(group).as_deref(), Some("A > S"));
        assert_eq!((repairs.first(), repairs.end(group)), (None, None));
        assert!(begin(2) && begin(3) && !repairs.is_hopeless(group));
        assert!(begin(4) && repairs.is_hopeless(group));
        assert!(
            repairs
                .first()
                .is_some_and(|told| told.contains("too often"))
        );
    }
}
