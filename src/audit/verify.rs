//! Checking an export, line by line: pure, and in memory only what is needed for the next line.

use std::collections::BTreeMap;

use r58_mqtt::sign::{KeyRing, PublicKey};

use super::{Begin, Change, Checkpoint, FORMAT, Hash, Line};

/// Longest line that is read, in bytes; a change has a few hundred.
pub const LONGEST_LINE: usize = 1024 * 1024;

/// What does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Not a line of an export.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// No beginning, or a second one.
    #[error("an export has one beginning, in its first line")]
    Beginning,
    /// Of another version.
    #[error("form {0} is not known to this version")]
    Format(u32),
    /// Not a key.
    #[error("a public key cannot be read")]
    Key,
    /// Of another organization than the rest, or than the earlier export.
    #[error("it is of the organization {0}")]
    Foreign(String),
    /// Changes were taken out or added.
    #[error("change {expected} should stand here")]
    Sequence {
        /// The next number.
        expected: u64,
    },
    /// The change, or one before it, is not what it was.
    #[error("its hash does not fit what it says and what went before")]
    Hash,
    /// A checkpoint that is not of the change before it.
    #[error("the checkpoint is of another chain than the one before it")]
    Checkpoint,
    /// Not by a key that is known.
    #[error("the checkpoint is not signed as it says: {0}")]
    Signature(String),
    /// Another chain than the one that was kept.
    #[error("an earlier checkpoint knows this change with another hash: the past was rewritten")]
    Rewritten,
    /// Shorter than what was kept.
    #[error("an earlier checkpoint knows {0} changes: the end was cut off")]
    Shortened(u64),
    /// No checkpoint at the end.
    #[error("the end is not signed: it is not all there")]
    Unsigned,
}

/// The first thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {why}", change.map(|seq| format!(" (change {seq})")).unwrap_or_default())]
pub struct Misfit {
    /// Line of the export, from 1.
    pub line: u64,
    /// The change, if it is about one.
    pub change: Option<u64>,
    /// Why.
    pub why: Why,
}

/// What was kept from earlier: an export, or a checkpoint alone.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    points: Vec<Checkpoint>,
    keys: Vec<PublicKey>,
}

impl Kept {
    /// Takes a line of an earlier export, or the line of a checkpoint.
    ///
    /// # Errors
    /// When it is not one.
    pub fn line(&mut self, line: &str) -> Result<(), Why> {
        match read(line)? {
            Line::Begin(begin) => self.keys.extend(begin.keys),
            Line::Checkpoint(point) => self.points.push(point),
            Line::Change(_) => {}
        }
        Ok(())
    }

    /// Whether nothing was signed in it.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

/// What an export is that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Organization.
    pub org: String,
    /// Changes.
    pub changes: u64,
    /// Hash of the last.
    pub head: Hash,
    /// Checkpoints in it, that of the end included.
    pub checkpoints: u64,
    /// Id of the key that signed the end.
    pub kid: String,
}

/// Checks an export as it comes.
#[derive(Debug)]
pub struct Verifier {
    /// Trusted alone, if there are any.
    pinned: Vec<PublicKey>,
    kept: Kept,
    known: BTreeMap<u64, Hash>,
    org: Option<String>,
    keys: KeyRing,
    line: u64,
    seq: u64,
    head: Hash,
    checkpoints: u64,
    /// Key of the checkpoint, while it is the last line.
    signed: Option<String>,
}

impl Verifier {
    /// Of an export that goes on from what was `kept`. With `pinned` keys, only these count; else the ones that the export
    /// names, and those that were kept.
    pub fn new(kept: Kept, pinned: Vec<PublicKey>) -> Self {
        Self {
            pinned,
            kept,
            known: BTreeMap::new(),
            org: None,
            keys: KeyRing::default(),
            line: 0,
            seq: 0,
            head: Hash::default(),
            checkpoints: 0,
            signed: None,
        }
    }

    /// Takes the next line, with or without its end.
    ///
    /// # Errors
    /// The first thing that does not fit. Nothing that comes after it means anything.
    pub fn line(&mut self, line: &str) -> Result<(), Misfit> {
        self.line += 1;
        let (change, done) = match read(line) {
            Ok(Line::Begin(begin)) => (None, self.begin(begin)),
            Ok(Line::Change(change)) => (Some(change.seq), self.change(&change)),
            Ok(Line::Checkpoint(point)) => (None, self.checkpoint(&point)),
            Err(why) => (None, Err(why)),
        };
        done.map_err(|why| Misfit { line: self.line, change, why })
    }

    fn begin(&mut self, begin: Begin) -> Result<(), Why> {
        if self.line != 1 {
            return Err(Why::Beginning);
        }
        if begin.format != FORMAT {
            return Err(Why::Format(begin.format));
        }
        let trusted: Vec<&PublicKey> = match self.pinned.is_empty() {
            true => self.kept.keys.iter().chain(&begin.keys).collect(),
            false => self.pinned.iter().collect(),
        };
        self.keys = KeyRing::new(trusted).map_err(|_| Why::Key)?;
        for point in &self.kept.points {
            if point.org != begin.org {
                return Err(Why::Foreign(begin.org));
            }
            signature(&self.keys, point)?;
            if self.known.insert(point.seq, point.hash).is_some_and(|other| other != point.hash) {
                return Err(Why::Rewritten);
            }
        }
        self.org = Some(begin.org);
        Ok(())
    }

    fn change(&mut self, change: &Change) -> Result<(), Why> {
        let org = self.org.as_deref().ok_or(Why::Beginning)?;
        self.signed = None;
        let expected = self.seq + 1;
        if change.seq != expected {
            return Err(Why::Sequence { expected });
        }
        if change.hash != change.hash_after(org, self.head) {
            return Err(Why::Hash);
        }
        if self.known.get(&change.seq).is_some_and(|known| *known != change.hash) {
            return Err(Why::Rewritten);
        }
        (self.seq, self.head) = (change.seq, change.hash);
        Ok(())
    }

    fn checkpoint(&mut self, point: &Checkpoint) -> Result<(), Why> {
        let org = self.org.as_deref().ok_or(Why::Beginning)?;
        if point.org != org {
            return Err(Why::Foreign(point.org.clone()));
        }
        if (point.seq, point.hash) != (self.seq, self.head) {
            return Err(Why::Checkpoint);
        }
        self.signed = Some(signature(&self.keys, point)?);
        self.checkpoints += 1;
        Ok(())
    }

    /// There are no more lines.
    ///
    /// # Errors
    /// When the end is not signed, or an earlier checkpoint knows more.
    pub fn finish(self) -> Result<Verdict, Misfit> {
        let misfit = |why| Misfit { line: self.line, change: None, why };
        let org = self.org.ok_or_else(|| misfit(Why::Beginning))?;
        let kid = self.signed.ok_or_else(|| misfit(Why::Unsigned))?;
        match self.known.last_key_value() {
            Some((seq, _)) if *seq > self.seq => Err(misfit(Why::Shortened(*seq))),
            _ => Ok(Verdict { org, changes: self.seq, head: self.head, checkpoints: self.checkpoints, kid }),
        }
    }
}

fn read(line: &str) -> Result<Line, Why> {
    serde_json::from_str(line).map_err(|error| Why::Unreadable(error.to_string()))
}

fn signature(keys: &KeyRing, point: &Checkpoint) -> Result<String, Why> {
    let head = Checkpoint::head(&point.org, point.seq, point.hash, point.at_ms);
    keys.verify_audit_head(&head, &point.sig).map_err(|error| Why::Signature(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use r58_mqtt::sign::CommandSigner;

    use super::*;

    fn signed(signer: &CommandSigner, seq: u64, hash: Hash) -> Line {
        let sig = signer.sign_audit_head(&Checkpoint::head("north", seq, hash, 7));
        Line::Checkpoint(Checkpoint { org: "north".into(), seq, hash, at_ms: 7, sig })
    }

    /// An export of changes that say these words, with a checkpoint after every third.
    fn export(signer: &CommandSigner, words: &[(String, Option<String>)]) -> Vec<Line> {
        let keys = vec![signer.public_key()];
        let mut lines = vec![Line::Begin(Begin { format: FORMAT, org: "north".into(), keys })];
        let mut head = Hash::default();
        for (n, (word, detail)) in words.iter().enumerate() {
            let seq = n as u64 + 1;
            let mut change = Change {
                seq,
                at_ms: 1_800_000_000_000 + n as i64,
                actor: format!("user:{word}"),
                action: "device.change".into(),
                target: word.clone(),
                detail: detail.clone(),
                hash: head,
            };
            change.hash = change.hash_after("north", head);
            head = change.hash;
            lines.push(Line::Change(change));
            if seq.is_multiple_of(3) && seq < words.len() as u64 {
                lines.push(signed(signer, seq, head));
            }
        }
        lines.push(signed(signer, words.len() as u64, head));
        lines
    }

    fn kept(lines: &[Line]) -> Kept {
        let mut kept = Kept::default();
        lines.iter().for_each(|line| kept.line(&line.written()).unwrap());
        kept
    }

    fn check(lines: &[Line], kept: Kept) -> Result<Verdict, Misfit> {
        let mut verifier = Verifier::new(kept, Vec::new());
        for line in lines {
            verifier.line(&line.written())?;
        }
        verifier.finish()
    }

    fn words() -> impl Strategy<Value = Vec<(String, Option<String>)>> {
        prop::collection::vec((".{0,12}", prop::option::of(".{0,12}")), 1..14)
    }

    proptest! {
        #[test]
        fn what_was_written_verifies_also_against_every_earlier_export(words in words(), earlier in 0..14_usize) {
            let signer = CommandSigner::generate();
            let earlier = export(&signer, &words[..earlier.min(words.len())]);
            let all = export(&signer, &words);
            let verdict = check(&all, kept(&earlier)).unwrap();
            prop_assert_eq!((verdict.changes, verdict.kid.as_str()), (words.len() as u64, signer.kid()));
        }

        #[test]
        fn a_line_that_is_taken_out_added_or_moved_is_found(words in words(), at in any::<prop::sample::Index>(),
            other in any::<prop::sample::Index>(), how in 0..3) {
            let whole = export(&CommandSigner::generate(), &words);
            let (at, other) = (at.index(whole.len()), other.index(whole.len()));
            let mut lines = whole.clone();
            match how {
                0 => { lines.remove(at); }
                1 => lines.insert(at, whole[other].clone()),
                _ => lines.swap(at, other),
            }
            // Two checkpoints of the same head, or one less of the past, say nothing wrong.
            let changes = |lines: &[Line]| {
                lines.iter().filter(|line| !matches!(line, Line::Checkpoint(_))).cloned().collect::<Vec<_>>()
            };
            prop_assume!(changes(&lines) != changes(&whole) || lines.last() != whole.last());
            prop_assert!(check(&lines, Kept::default()).is_err());
        }

        #[test]
        fn a_change_of_any_field_is_found_and_its_place_is_told(words in words(), at in any::<prop::sample::Index>(),
            field in 0..7) {
            let mut lines = export(&CommandSigner::generate(), &words);
            let place = at.index(words.len());
            let (n, line) = lines.iter_mut().enumerate().filter(|(_, line)| matches!(line, Line::Change(_)))
                .nth(place).unwrap();
            let Line::Change(change) = line else { unreachable!() };
            match field {
                0 => change.seq += 1,
                1 => change.at_ms -= 1,
                2 => change.actor.push('x'),
                3 => change.action.push('x'),
                4 => change.target.insert(0, 'x'),
                5 => change.detail = match change.detail.take() { None => Some(String::new()), Some(_) => None },
                _ => change.hash.0[31] ^= 1,
            }
            let misfit = check(&lines, Kept::default()).unwrap_err();
            prop_assert_eq!(misfit.line, n as u64 + 1);
        }

        #[test]
        fn a_field_that_moves_its_letters_to_the_next_one_is_another_change(words in words()) {
            let mut lines = export(&CommandSigner::generate(), &words);
            let Line::Change(change) = &mut lines[1] else { unreachable!() };
            let letter = change.action.pop().unwrap();
            change.target.insert(0, letter);
            prop_assert_eq!(check(&lines, Kept::default()).unwrap_err().why, Why::Hash);
        }

        #[test]
        fn an_end_that_was_cut_off_and_a_past_that_was_rewritten_are_found_by_what_was_kept(words in words()) {
            let signer = CommandSigner::generate();
            let before = kept(&export(&signer, &words));
            let cut = export(&signer, &words[..words.len() - 1]);
            prop_assert_eq!(check(&cut, before.clone()).unwrap_err().why, Why::Shortened(words.len() as u64));
            let mut other = words.clone();
            other[0].0.push('x');
            let rewritten = export(&signer, &other);
            prop_assert_eq!(check(&rewritten, Kept::default()).map(|verdict| verdict.changes), Ok(words.len() as u64));
            prop_assert_eq!(check(&rewritten, before).unwrap_err().why, Why::Rewritten);
        }

        #[test]
        fn no_line_whatever_makes_it_fail_otherwise_than_in_order(line in ".{0,80}") {
            prop_assert!(Verifier::new(Kept::default(), Vec::new()).line(&line).is_err());
        }
    }

    #[test]
    fn another_servers_key_is_not_taken_where_one_is_pinned() {
        let (ours, theirs) = (CommandSigner::generate(), CommandSigner::generate());
        let lines = export(&theirs, &[("a".into(), None)]);
        let mut verifier = Verifier::new(Kept::default(), vec![ours.public_key()]);
        let done: Result<Vec<()>, Misfit> = lines.iter().map(|line| verifier.line(&line.written())).collect();
        assert!(matches!(done.unwrap_err(), Misfit { line: 3, why: Why::Signature(_), .. }));
    }

    #[test]
    fn fields_that_nobody_hashed_are_refused() {
        let lines = export(&CommandSigner::generate(), &[("a".into(), None)]);
        for (from, to) in [("\"seq\":1", "\"seq\":1,\"note\":1"), ("\"seq\":1", "\"seq\":1,\"seq\":1")] {
            let mut verifier = Verifier::new(Kept::default(), Vec::new());
            verifier.line(&lines[0].written()).unwrap();
            let changed = lines[1].written().replacen(from, to, 1);
            assert!(matches!(verifier.line(&changed).unwrap_err().why, Why::Unreadable(_)), "{changed}");
        }
    }
}
