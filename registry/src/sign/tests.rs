use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

impl Statement for Note {
    const DOMAIN: &'static str = "test/note/1";
    const BYTES_MAX: usize = 100;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    text: String,
}

impl Statement for Order {
    const DOMAIN: &'static str = "test/order/1";
    const BYTES_MAX: usize = 100;
}

fn note() -> (Note, SecretKey) {
    (Note { text: "hello".into() }, SecretKey::from_bytes(&[7; 32]))
}

#[test]
fn a_sealed_statement_opens_to_itself_and_its_signer() {
    let (note, key) = note();
    assert_eq!(Signed::seal(&note, &key).open().unwrap(), (note, key.public()));
}

#[test]
fn a_changed_byte_anywhere_breaks_it() {
    let (note, key) = note();
    let sealed = canon::encode(&Signed::seal(&note, &key));
    for at in 0..sealed.len() {
        let mut bytes = sealed.clone();
        bytes[at] ^= 1;
        let opened = canon::decode::<Signed<Note>>(&bytes, 1000).ok().and_then(|signed| signed.open().ok());
        assert_eq!(opened, None, "byte {at} changed unnoticed");
    }
}

#[test]
fn a_signature_for_one_kind_is_worth_nothing_for_another() {
    let (note, key) = note();
    let bytes = canon::encode(&Signed::seal(&note, &key));
    let order: Signed<Order> = canon::decode(&bytes, 1000).unwrap();
    assert!(matches!(order.open(), Err(SignatureError::Mismatch { domain: "test/order/1" })));
}

#[test]
fn nothing_is_believed_of_nobody() {
    let nothing = Signed::<Note>::nothing();
    assert!(matches!(nothing.open(), Err(SignatureError::Key)));
    assert!(matches!(nothing.peek(), Err(SignatureError::Payload { .. })));
}

#[test]
fn a_secret_key_does_not_print() {
    assert!(!format!("{:?}", SecretKey::from_bytes(&[7; 32])).contains("0707"));
}

fn notes(count: usize) -> Vec<Note> {
    (0..count).map(|number| Note { text: format!("note {number}") }).collect()
}

fn batch(count: usize) -> (Batch<Note>, Vec<Signed<Note>>) {
    let (batch, _) = Batch::seal(&notes(count), Tip::START, &note().1).unwrap();
    let signed = batch.signed().unwrap();
    (batch, signed)
}

/// A statement of a batch with something about its inclusion changed.
fn changed(signed: &Signed<Note>, change: impl FnOnce(&mut Inclusion)) -> Signed<Note> {
    let mut changed = signed.clone();
    change(changed.inclusion.as_mut().unwrap());
    changed
}

#[test]
fn every_statement_of_a_batch_opens_alone_with_the_one_signature() {
    for count in [1, 2, 3, 5, 16, 33, BATCH_ITEMS_MAX] {
        let (batch, signed) = batch(count);
        let (head, opened) = batch.open_by(|head| head.open().map(drop)).unwrap();
        assert_eq!((head.count as usize, opened), (count, notes(count)));
        for (signed, note) in signed.iter().zip(notes(count)).step_by(1 + count / 40) {
            assert_eq!(signed.open().unwrap(), (note, self::note().1.public()));
            assert_eq!(signed.head().as_ref(), Some(&batch.head));
            let alone = canon::encode(&Signed::seal(&signed.peek().unwrap(), &self::note().1)).len();
            assert!(canon::encode(signed).len() <= alone + INCLUSION_BYTES_MAX);
        }
    }
}

#[test]
fn heads_follow_each_other_by_number_and_hash() {
    let (_, key) = note();
    let (first, tip) = Batch::seal(&notes(2), Tip::START, &key).unwrap();
    let (second, end) = Batch::seal(&notes(3), tip, &key).unwrap();
    let [first, second] = [first, second].map(|batch| batch.head.peek().unwrap());
    assert_eq!((first.seq, first.prev, first.tip()), (0, Tip::START.last, tip));
    assert_eq!((second.seq, second.prev, second.tip()), (1, first.id(), end));
}

#[test]
fn batches_of_none_and_of_too_many_are_not_signed() {
    for count in [0, BATCH_ITEMS_MAX + 1] {
        let error = Batch::seal(&notes(count), Tip::START, &note().1).unwrap_err();
        assert!(matches!(&error, SignatureError::Count { count: found } if *found == count), "{error}");
    }
}

#[test]
fn a_changed_byte_anywhere_breaks_a_statement_of_a_batch() {
    let (_, signed) = batch(5);
    for signed in [&signed[1], &signed[4]] {
        let sealed = canon::encode(signed);
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            let opened = canon::decode::<Signed<Note>>(&bytes, 2000).ok().and_then(|signed| signed.open().ok());
            assert_eq!(opened, None, "byte {at} changed unnoticed");
        }
    }
}

#[test]
fn what_is_wrong_with_a_statement_of_a_batch_is_named() {
    let (_, signed) = batch(5);
    let other_key = SecretKey::from_bytes(&[8; 32]);
    let (foreign, _) = Batch::seal(&notes(5), Tip::START, &other_key).unwrap();
    let foreign = foreign.signed().unwrap();
    let error = |signed: Signed<Note>| signed.open().unwrap_err().to_string();

    let other_path = signed[2].inclusion.clone().unwrap().path;
    let path_of_another = changed(&signed[1], |inclusion| inclusion.path = other_path);
    assert!(error(path_of_another).contains("path does not lead from leaf 1 of 5"));
    let short = changed(&signed[1], |inclusion| inclusion.path.truncate(2));
    assert!(error(short).contains("path does not lead"));
    let beyond = changed(&signed[1], |inclusion| inclusion.index = 5);
    assert!(error(beyond).contains("leaf 5 of 5"));

    let other_head = foreign[1].inclusion.clone().unwrap().head;
    let head_of_another = changed(&signed[1], |inclusion| inclusion.head = other_head);
    assert!(error(head_of_another).contains("a head of another host"));
    let resigned = Signed { signer: foreign[1].signer.clone(), ..signed[1].clone() };
    assert!(error(resigned).contains("a head of another host"));
    let forged = Signed { signature: foreign[1].signature.clone(), ..signed[1].clone() };
    assert!(error(forged).contains("signature over quorate/head/1 does not match"));
    let renumbered = changed(&signed[1], |inclusion| inclusion.head.seq = 7);
    assert!(error(renumbered).contains("signature over quorate/head/1"));
    let many = changed(&signed[1], |inclusion| inclusion.head.count = 1025);
    assert!(error(many).contains("batch of 1025 statements, outside the bounds of 1 to 1024"));

    let cut = Signed { payload: signed[1].payload[..5].to_vec().into(), ..signed[1].clone() };
    assert!(error(cut).contains("path does not lead"));
    let stripped = Signed { inclusion: None, ..signed[1].clone() };
    assert!(error(stripped).contains("signature over test/note/1"));
    let order: Signed<Order> = canon::decode(&canon::encode(&signed[1]), 2000).unwrap();
    assert!(order.open().unwrap_err().to_string().contains("path does not lead"));
}

#[test]
fn a_batch_with_other_statements_than_were_signed_is_refused() {
    let (batch, _) = batch(4);
    let error = |batch: &Batch<Note>| batch.open_by(|head| head.open().map(drop)).unwrap_err().to_string();
    let mut bytes = serde_json::to_value(&batch).unwrap();
    bytes["payloads"].as_array_mut().unwrap().swap(0, 1);
    assert!(error(&serde_json::from_value(bytes.clone()).unwrap()).contains("do not lead to the root of head 0"));
    bytes["payloads"].as_array_mut().unwrap().pop();
    assert!(error(&serde_json::from_value(bytes).unwrap()).contains("has 3 statements, signed were 4"));
}

#[test]
fn a_head_is_signed_for_itself_and_by_its_own_node() {
    let (_, key) = note();
    let head = batch(1).0.head.peek().unwrap();
    let in_a_batch = Batch::seal(&[head], Tip::START, &key).unwrap().0.signed().unwrap().remove(0);
    assert!(in_a_batch.open().is_ok());
    assert!(matches!(head.open(&in_a_batch), Err(SignatureError::Nested)));
    let other = Signed::seal(&head, &SecretKey::from_bytes(&[8; 32]));
    assert!(matches!(head.open(&other), Err(SignatureError::OtherHead { .. })));
}
