//! Chains as they are written, and every single change of them.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::engine::config::Secret;
use crate::engine::projects::audit::Outcome;
use crate::engine::projects::audit::record::{Entry, write};
use crate::engine::projects::directory::view_of;
use crate::engine::projects::identity::{Signer, sha256_hex};
use crate::engine::projects::project::{Project, Signers};
use crate::engine::projects::registration::ProjectConfig;
use crate::engine::store::Shelf;

/// When records are written; the keys are older.
const AT: u64 = 1_000_000;

fn signer() -> Arc<Signer> {
    static SIGNER: LazyLock<Arc<Signer>> = LazyLock::new(|| derive("the secret of the project"));
    SIGNER.clone()
}

fn derive(secret: &str) -> Arc<Signer> {
    Arc::new(Signer::derive("a", &Secret::new("key"), &Secret::new(secret)).unwrap())
}

/// The project `a` with its key.
fn view() -> Arc<View> {
    static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| {
        let config = serde_json::json!({
            "projectId": "a", "name": "a", "namespace": "n", "allowedEventTypes": [], "allowedTargets": [],
        });
        let signers = Signers { current: Arc::into_inner(derive("the secret of the project")), previous: None };
        let project = Project::registered(None, &ProjectConfig::read(config).unwrap(), &signers, 5).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(view_of(&[(Shelf::Projects, "a", project.to_text())]))
    });
    VIEW.clone()
}

type Change<'a> = &'a dyn Fn(&mut ChainRecord);
type ChangeOfEnds = fn(&mut Chains);

/// One bucket.
#[derive(Clone, Debug, Default)]
struct Log {
    records: Vec<(EntryId, ChainRecord)>,
    chains: Chains,
}

impl Log {
    /// Records of several chains among each other: chain and whether it is signed. The first `trimmed` of all are gone.
    fn written(order: &[(usize, bool)], trimmed: usize) -> Self {
        let mut log = Self::default();
        for (i, (chain, is_signed)) in order.iter().enumerate() {
            let chain = format!("chain-{chain}");
            let head = log.chains.heads.get(&chain).cloned().unwrap_or_default();
            let entry = Entry {
                source: "a".into(),
                target: "b".into(),
                event_type: "t".into(),
                message_id: Some(i.to_string()),
                // Records of sends are signed.
                outcome: if *is_signed { Outcome::Sent } else { Outcome::Delivered },
                reason: None,
                latency_us: None,
                signer: is_signed.then(signer),
                again: false,
            };
            let record = write(&entry, &chain, head.sequence + 1, AT, &head.hash);
            log.chains.heads.insert(chain, ChainPlace { sequence: head.sequence + 1, hash: record.hash.clone() });
            log.records.push((EntryId { ms: AT, seq: i as u64 }, record));
        }
        for (_, record) in log.records.drain(..trimmed.min(order.len())) {
            let text = record::read(&record).unwrap();
            log.chains.anchors.insert(text.chain.to_owned(), ChainPlace { sequence: text.n, hash: record.hash.clone() });
        }
        log
    }

    fn broken(&self) -> Option<String> {
        let mut checker = Checker { chains: BTreeMap::new(), view: view(), checked: 0 };
        let broken = self.records.iter().find_map(|(id, record)| checker.follow(*id, record));
        broken.or_else(|| checker.ends(&self.chains, &self.chains))
    }

    fn place(&self, i: usize) -> (String, u64) {
        let text = record::read(&self.records[i].1).unwrap();
        (text.chain.to_owned(), text.n)
    }

    fn name(&self, i: usize) -> String {
        let (chain, n) = self.place(i);
        format!("{chain}:{n}")
    }
}

/// Five records of one chain, of which the last three are signed; two before them are trimmed.
fn short() -> Log {
    Log::written(&[(0, true), (0, false), (0, false), (0, false), (0, true), (0, true), (0, true)], 2)
}

#[test]
fn chains_are_whole_as_they_were_written() {
    assert_eq!(Log::default().broken(), None);
    let log = short();
    assert_eq!((log.records.len(), log.broken()), (5, None));
    for trimmed in 0..=6 {
        assert_eq!(
            Log::written(&[(0, false), (1, true), (0, true), (2, false), (1, false), (0, true)], trimmed).broken(),
            None,
            "{trimmed}"
        );
    }
}

#[test]
fn records_that_are_missing_are_named() {
    for (i, missing) in [(0, "chain-0:3"), (1, "chain-0:4"), (2, "chain-0:5"), (4, "chain-0:7")] {
        let mut log = short();
        log.records.remove(i);
        assert_eq!(log.broken().as_deref(), Some(missing), "{i}");
    }
    let mut log = Log::written(&[(0, true), (0, true)], 0);
    log.records.remove(0);
    assert_eq!(log.broken().as_deref(), Some("chain-0:1"), "the first of all");
    let mut log = short();
    log.records.clear();
    assert_eq!(log.broken().as_deref(), Some("chain-0:3"));
}

#[test]
fn records_that_were_changed_are_named() {
    let (of_another, another) = (Log::written(&[(7, false), (7, false)], 0), derive("the secret of somebody"));
    let changes: [(&str, Change<'_>); 7] = [
        ("text", &|record| record.text = record.text.replace("\"t\"", "\"u\"")),
        ("text and hash", &|record| {
            record.text = record.text.replace("\"t\"", "\"u\"");
            record.hash = sha256_hex(record.text.as_bytes());
        }),
        ("hash", &|record| record.hash = sha256_hex(b"another")),
        ("not readable", &|record| record.text = "{}".into()),
        ("of another chain", &|record| *record = of_another.records[0].1.clone()),
        ("another signature", &|record| record.signature = Some(another.sign_record(&record.hash))),
        ("no signature", &|record| record.signature = Some("nonsense".into())),
    ];
    for (what, change) in changes {
        for i in 0..5 {
            let mut log = short();
            change(&mut log.records[i].1);
            let broken = log.broken();
            assert!(broken.is_some(), "{what} of {i}");
            if what.contains("signature") || what == "text" || what == "hash" {
                assert_eq!(broken, Some(short().name(i)), "{what}");
            }
        }
    }
    for i in 2..5 {
        let mut log = short();
        log.records[i].1.signature = None;
        assert_eq!(log.broken(), Some(short().name(i)), "without its signature");
    }
}

#[test]
fn heads_and_anchors_that_were_changed_are_found() {
    let changes: [(&str, ChangeOfEnds); 10] = [
        ("head removed", |chains| chains.heads.clear()),
        ("head ahead", |chains| chains.heads.get_mut("chain-0").unwrap().sequence += 1),
        ("head behind", |chains| chains.heads.get_mut("chain-0").unwrap().sequence -= 1),
        ("head of another record", |chains| chains.heads.get_mut("chain-0").unwrap().hash = sha256_hex(b"x")),
        ("anchor removed", |chains| chains.anchors.clear()),
        ("anchor behind", |chains| chains.anchors.get_mut("chain-0").unwrap().sequence -= 1),
        ("anchor ahead", |chains| chains.anchors.get_mut("chain-0").unwrap().sequence += 1),
        ("anchor far ahead", |chains| chains.anchors.get_mut("chain-0").unwrap().sequence += 100),
        ("anchor of another record", |chains| chains.anchors.get_mut("chain-0").unwrap().hash = sha256_hex(b"x")),
        ("a head of nothing", |chains| drop(chains.heads.insert("chain-9".into(), ChainPlace { sequence: 1, hash: "h".into() }))),
    ];
    for (what, change) in changes {
        let mut log = short();
        change(&mut log.chains);
        assert!(log.broken().is_some(), "{what}");
    }
    // All is trimmed: the two tell of each other.
    let mut log = Log::written(&[(0, true), (0, true)], 2);
    assert_eq!(log.broken(), None);
    log.chains.heads.get_mut("chain-0").unwrap().hash = sha256_hex(b"x");
    assert_eq!(log.broken().as_deref(), Some("chain-0:2"));
}

#[test]
fn what_is_written_and_trimmed_meanwhile_is_no_damage() {
    let order = [(0, true), (0, true), (0, true), (0, true), (1, false)];
    let early = Log::written(&order[..3], 0);
    let late = Log::written(&order, 2);
    let whole = Log::written(&order, 0);
    // The heads were read first, then all records, then the anchors.
    let mut checker = Checker { chains: BTreeMap::new(), view: view(), checked: 0 };
    assert_eq!(whole.records.iter().find_map(|(id, record)| checker.follow(*id, record)), None);
    assert_eq!(checker.ends(&early.chains, &late.chains), None);
    // The first two were gone by then.
    let mut checker = Checker { chains: BTreeMap::new(), view: view(), checked: 0 };
    assert_eq!(late.records.iter().find_map(|(id, record)| checker.follow(*id, record)), None);
    assert_eq!(checker.ends(&early.chains, &late.chains), None);
    // More was trimmed while they were read.
    let mut checker = Checker { chains: BTreeMap::new(), view: view(), checked: 0 };
    assert_eq!(late.records.iter().find_map(|(id, record)| checker.follow(*id, record)), None);
    assert_eq!(checker.ends(&late.chains, &Log::written(&order, 3).chains), None);
    // Of one that was forgotten nothing is to be there.
    let checker = Checker { chains: BTreeMap::new(), view: view(), checked: 0 };
    assert_eq!(checker.ends(&early.chains, &Chains::default()), None);
}

#[test]
fn the_signatures_of_those_who_are_not_known_are_not_judged() {
    let mut log = short();
    for (_, record) in &mut log.records {
        record.text = record.text.replace(r#""source":"a""#, r#""source":"gone""#);
    }
    // Written by one who signs as somebody that nobody knows.
    let mut log = Log { records: Vec::new(), ..log };
    log.chains = Chains::default();
    let entry = Entry {
        source: "gone".into(),
        target: "b".into(),
        event_type: "t".into(),
        message_id: None,
        outcome: Outcome::Denied,
        reason: Some("r".repeat(2000)),
        latency_us: None,
        signer: Some(derive("the secret of somebody")),
        again: false,
    };
    let record = write(&entry, "c", 1, AT, "");
    log.chains.heads.insert("c".into(), ChainPlace { sequence: 1, hash: record.hash.clone() });
    log.records.push((EntryId { ms: 1, seq: 1 }, record));
    assert_eq!(log.broken(), None);
    let (view, stranger, own) = (view(), derive("the secret of somebody"), signer());
    let signed = |key_id, signature: Option<&str>| view.known("a").unwrap().record_signed(6, key_id, "hash", signature);
    assert!(signed(Some(own.key_id()), Some(&own.sign_record("hash"))));
    assert!(!signed(Some(stranger.key_id()), Some(&stranger.sign_record("hash"))));
    assert!(!signed(Some("another key"), None) && !signed(None, None), "it had its key from the beginning");
}

/// What is done to one stored record, head or anchor.
#[derive(Clone, Debug)]
enum Damage {
    Remove,
    Text(usize, u8),
    Rewrite(usize, u8),
    Hash(usize),
    Signature(Option<usize>),
    Swap,
    Twice,
    Head(i8),
    HeadHash,
    NoHead,
    AnchorHash,
    NoAnchor,
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = 0..10_000_usize;
    prop_oneof![
        Just(Damage::Remove),
        (at.clone(), any::<u8>()).prop_map(|(at, to)| Damage::Text(at, to)),
        (at.clone(), any::<u8>()).prop_map(|(at, to)| Damage::Rewrite(at, to)),
        at.clone().prop_map(Damage::Hash),
        proptest::option::of(at).prop_map(Damage::Signature),
        Just(Damage::Swap),
        Just(Damage::Twice),
        any::<i8>().prop_filter("a change", |by| *by != 0).prop_map(Damage::Head),
        Just(Damage::HeadHash),
        Just(Damage::NoHead),
        Just(Damage::AnchorHash),
        Just(Damage::NoAnchor),
    ]
}

/// Another text, with one byte changed.
fn changed(text: &str, at: usize, to: u8) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes[at] = if bytes[at] == 32 + to % 95 { b'~' + 1 - to % 2 } else { 32 + to % 95 };
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does it; `false`: there is nothing to which it could be done.
fn spoil(log: &mut Log, i: usize, damage: &Damage) -> bool {
    let (chain, _) = log.place(i);
    match damage {
        Damage::Remove => drop(log.records.remove(i)),
        Damage::Text(at, to) => {
            let record = &mut log.records[i].1;
            record.text = changed(&record.text, *at, *to);
        }
        Damage::Rewrite(at, to) => {
            let record = &mut log.records[i].1;
            record.text = changed(&record.text, *at, *to);
            record.hash = sha256_hex(record.text.as_bytes());
        }
        Damage::Hash(at) => {
            let record = &mut log.records[i].1;
            record.hash = changed(&record.hash, *at, 7);
        }
        Damage::Signature(at) => {
            let record = &mut log.records[i].1;
            record.signature = match (at, &record.signature) {
                (None, None) => Some("s".into()),
                (None, Some(_)) => None,
                // The last character has bits that say nothing; one with others in them is no base64 of it.
                (Some(at), Some(signature)) => Some(changed(signature, *at, 7)),
                (Some(_), None) => Some(signer().sign_record(&record.hash)),
            };
        }
        Damage::Swap => {
            let Some(j) = (i + 1..log.records.len()).find(|j| log.place(*j).0 == chain) else { return false };
            log.records.swap(i, j);
        }
        Damage::Twice => {
            let record = log.records[i].clone();
            log.records.insert(i, record);
        }
        Damage::Head(by) => {
            let head = log.chains.heads.get_mut(&chain).unwrap();
            head.sequence = head.sequence.saturating_add_signed((*by).into());
        }
        Damage::HeadHash => log.chains.heads.get_mut(&chain).unwrap().hash.push('0'),
        Damage::NoHead => drop(log.chains.heads.remove(&chain)),
        Damage::AnchorHash => match log.chains.anchors.get_mut(&chain) {
            Some(anchor) => anchor.hash.push('0'),
            None => return false,
        },
        Damage::NoAnchor => return log.chains.anchors.remove(&chain).is_some(),
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_single_change_is_found(
        order in proptest::collection::vec((0..3_usize, any::<bool>()), 1..12), trimmed in 0..11_usize, which in any::<prop::sample::Index>(),
        damage in damage(),
    ) {
        let mut log = Log::written(&order, trimmed.min(order.len() - 1));
        prop_assert_eq!(log.broken(), None);
        let i = which.index(log.records.len());
        let whole = log.clone();
        if spoil(&mut log, i, &damage) {
            prop_assert!(log.broken().is_some(), "{:?} of {}: {:?}", damage, whole.name(i), whole);
        }
    }
}
