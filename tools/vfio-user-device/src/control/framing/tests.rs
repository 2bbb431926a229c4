// SPDX-License-Identifier: GPL-2.0 OR MIT

use proptest::prelude::*;

use super::*;

/// What comes of these pieces, and the most that was kept.
fn texts(pieces: &[&[u8]]) -> (Vec<Result<Vec<u8>, FrameError>>, usize) {
    let mut framer = Framer::default();
    let (mut found, mut kept) = (Vec::new(), 0);
    for piece in pieces {
        framer.push(piece);
        while let Some(text) = framer.next_text() {
            found.push(text.map(<[u8]>::to_vec));
        }
        kept = kept.max(framer.bytes.len() - framer.start);
    }
    (found, kept)
}

#[test]
fn texts_end_with_their_outermost_bracket() {
    let bytes = br#" {"a":"}\"]"} [{"b":[]}]
{} "#;
    let (found, kept) = texts(&[bytes]);
    let found: Vec<&[u8]> = found.iter().flatten().map(|text| &text[..]).collect();
    let expected: [&[u8]; 3] = [br#"{"a":"}\"]"}"#, br#"[{"b":[]}]"#, b"{}"];
    assert_eq!(found, expected);
    assert_eq!(kept, 0);
}

#[test]
fn what_is_nothing_is_passed_over_up_to_the_end_of_its_line() {
    let (found, _) = texts(&[b"abc {}\n{}}\n\"{}\n{\"a\n{}[{]}\n"]);
    let ok = || Ok(b"{}".to_vec());
    assert_eq!(
        found,
        [
            Err(FrameError::Garbage),
            ok(),
            Err(FrameError::Garbage),
            Err(FrameError::Garbage),
            Err(FrameError::OpenString),
            ok(),
            Err(FrameError::Garbage),
        ]
    );
    let line = vec![b'a'; 1 << 20];
    let (found, kept) = texts(&[&line, &line, b"\n"]);
    assert_eq!((found, kept), (vec![Err(FrameError::Garbage)], 0));
}

#[test]
fn texts_are_short_and_flat() {
    let longest = format!("{{{}}}", " ".repeat(MAX_TEXT - 2));
    let found = texts(&[longest.as_bytes()]).0;
    assert!(found == [Ok(longest.clone().into_bytes())]);
    let longer = format!("{{ {}", &longest[1..]);
    let found = texts(&[longer.as_bytes(), b"{}"]).0;
    assert!(found == [Err(FrameError::TooLong)]);
    let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
    assert!(texts(&[deep(MAX_DEPTH).as_bytes()]).0[0].is_ok());
    assert_eq!(
        texts(&[deep(MAX_DEPTH + 1).as_bytes(), b"{}"]).0,
        [Err(FrameError::TooDeep)]
    );
}

proptest! {
    #[test]
    fn any_split_has_the_same_texts(
        bytes in prop::collection::vec(prop::sample::select(&b"{}[]\"\\\n a1"[..]), 0..200),
        cuts in prop::collection::vec(0usize..200, 0..8),
    ) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
        let whole = texts(&[&bytes]).0;
        prop_assert_eq!(&texts(&pieces).0, &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&texts(&single).0, &whole);
        // And a text of a client that means well comes through behind all of that.
        let behind = texts(&[&bytes, b"\"\n}\n"]).0;
        prop_assert!(behind.len() >= whole.len());
    }

    #[test]
    fn no_more_is_kept_than_a_text(bytes in prop::collection::vec(any::<u8>(), 0..4096), times in 1usize..100) {
        let pieces: Vec<&[u8]> = std::iter::repeat_n(&bytes[..], times).collect();
        let (_, kept) = texts(&pieces);
        prop_assert!(kept <= MAX_TEXT);
    }

    #[test]
    fn values_come_through_as_they_were(values in prop::collection::vec(value(), 1..5)) {
        let texts_in: Vec<String> = values.iter().map(|value| format!("[{value}]")).collect();
        let joined = texts_in.concat();
        let found = texts(&[joined.as_bytes()]).0;
        let expected: Vec<_> = texts_in.into_iter().map(|text| Ok(text.into_bytes())).collect();
        prop_assert_eq!(found, expected);
    }

    /// Whatever it is, it is taken for something.
    #[test]
    fn no_text_upsets_whoever_parses_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::control::envelope::parse(&bytes);
        let mut brackets = b"{\"execute\":".to_vec();
        brackets.extend(&bytes);
        brackets.push(b'}');
        let _ = crate::control::envelope::parse(&brackets);
    }
}

fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(8, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}
