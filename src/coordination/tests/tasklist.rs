use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::tasklist::{Seen, SeenList, decode, diff, parse, plan_tick, tick};

fn texts(text: &str) -> Vec<(String, bool, usize)> {
    parse(text)
        .items
        .into_iter()
        .map(|item| (item.text, item.checked, item.line))
        .collect()
}

fn item(text: &str, checked: bool, line: usize) -> (String, bool, usize) {
    (text.to_owned(), checked, line)
}

#[test]
fn every_kind_of_list_marker_and_box() {
    let text = "# Tasks\n\n- [ ] dash\n- [x] done\n- [X] Done\n\n* [ ] star\n\n+ [ ] plus\n\n1. [ ] one\n2) [ ] two\n";
    assert_eq!(
        texts(text),
        [
            item("dash", false, 3),
            item("done", true, 4),
            item("Done", true, 5),
            item("star", false, 7),
            item("plus", false, 9),
            item("one", false, 11),
            item("two", false, 12),
        ]
    );
}

#[test]
fn what_only_looks_like_an_item_is_none() {
    let text = "- [ ] real\n\n```\n- [ ] in a fence\n```\n\n    - [ ] indented code\n\n<!--\n- [ ] in a comment\n-->\n\
                text - [ ] inline\n\n- [] no space\n- [ ]no space after\n- [y] other\n- [x](link)\n- plain\n-     [ ] code in an item\n\n\
                ~~~md\n* [x] tilde\n~~~\n";
    assert_eq!(texts(text), [item("real", false, 1)]);
}

#[test]
fn nested_boxes_are_items_and_plain_bullets_belong_to_their_item() {
    let text = "- [ ] parent\n  goes on\n  - detail\n  - [ ] child\n    with more\n    - [x] grandchild\n  - last detail\n- plain\n  - [ ] under plain\n";
    assert_eq!(
        texts(text),
        [
            item("parent\ngoes on\n- detail\n- last detail", false, 1),
            item("child\nwith more", false, 4),
            item("grandchild", true, 6),
            item("under plain", false, 9),
        ]
    );
    let parents: Vec<Vec<String>> = parse(text).items.into_iter().map(|i| i.parents).collect();
    assert_eq!(
        parents,
        [
            vec![],
            vec!["parent"],
            vec!["parent", "child"],
            vec!["plain"]
        ]
    );
}

#[test]
fn windows_line_ends_and_a_byte_order_mark_survive() {
    let text = "\u{FEFF}- [ ] erste\r\n  weiter\r\n- [ ] zweite ✓\r\n";
    assert_eq!(
        texts(text),
        [item("erste\nweiter", false, 1), item("zweite ✓", false, 3)]
    );
    let list = parse(text);
    let ticked = tick(text, &list.items[1].key).unwrap();
    assert_eq!(
        ticked,
        "\u{FEFF}- [ ] erste\r\n  weiter\r\n- [x] zweite ✓\r\n"
    );
    assert_eq!(plan_tick(text, &list.items[0].key).unwrap().offset, 6);
}

#[test]
fn equal_texts_are_told_apart_by_their_order() {
    let list = parse("- [ ] same\n- [x]  same \n- [ ] other\n");
    assert_eq!(
        list.items.iter().map(|i| i.occurrence).collect::<Vec<_>>(),
        [0, 1, 0]
    );
    assert_ne!(list.items[0].key, list.items[1].key);
    assert!(list.items.iter().all(|i| i.key.len() == 10));
    // The key survives ticking, moving and rewrapping.
    assert_eq!(list.items[2].key, parse("* [x]\tother\n").items[0].key);
    // Stored tasks carry keys in their ids: another algorithm would create every task anew.
    assert_eq!(list.items[2].key, "1f352f14af");
}

#[test]
fn a_text_without_items_says_so() {
    for text in ["", "# Title\n\nprose\n", "- a\n- b\n", "- [ ]\n"] {
        let list = parse(text);
        assert!(list.items.is_empty() && !list.unread);
        assert_eq!(
            list.reason.as_deref(),
            Some("no checklist items found"),
            "{text:?}"
        );
    }
    let huge = parse(&"x".repeat(2_000_000));
    assert!(huge.unread);
    let error = decode(b"- [ ] a\n\xC3\x28").unwrap_err();
    assert_eq!(error.offset, 8);
    assert!(error.to_string().contains("byte 8"), "{error}");
}

#[test]
fn ticking_what_is_ticked_or_gone() {
    let text = "- [X] a\n";
    let key = parse(text).items[0].key.clone();
    assert_eq!(tick(text, &key).as_deref(), Some(text));
    assert_eq!(tick(text, "0123456789"), None);
}

#[test]
fn a_source_is_compared_with_itself() {
    let none = BTreeSet::new();
    let first = parse("- [ ] a\n- [ ] b\n- [x] c\n");
    let key = |at: usize| first.items[at].key.clone();
    let changes = diff(&SeenList::default(), &first);
    assert_eq!(changes.added, [key(0), key(1), key(2)]);
    let seen = SeenList::default().after(&first, &none);
    assert_eq!(
        diff(&seen, &first),
        super::super::tasklist::ListChanges::default()
    );

    let second = parse("- [x] b\n- [ ] c\n");
    let changes = diff(&seen, &second);
    assert_eq!(changes.removed, [key(0)]);
    assert_eq!(changes.ticked_by_hand, [key(1)]);
    assert_eq!(changes.unticked, [key(2)]);
    assert_eq!(changes.moved, [key(1), key(2)]);

    // An editor that empties the file first: what comes back is the same, not unticked.
    let emptied = seen.after(&parse(""), &none);
    let back = diff(&emptied, &first);
    assert_eq!((back.unticked.len(), back.ticked_by_hand.len()), (0, 0));
    assert_eq!(back.added.len(), 3);
    let json = serde_json::to_string(&emptied).unwrap();
    assert_eq!(serde_json::from_str::<SeenList>(&json).unwrap(), emptied);
    assert_eq!(emptied.items[&key(2)], Seen(true, false, 2));
}

/// Lines a list may be made of, nasty ones among them.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => ("[ ]{0,6}", "[-*+]|[0-9]{1,2}[.)]", "[ xX]", "[ a-cä✓]{0,8}")
            .prop_map(|(indent, marker, mark, text)| format!("{indent}{marker} [{mark}] {text}")),
        1 => "[ ]{0,5}[-*+>] [a-c ]{0,6}",
        1 => Just("```".to_owned()),
        1 => Just("<!--".to_owned()),
        1 => Just("-->".to_owned()),
        1 => Just(String::new()),
        1 => "[ \\t\\[\\]x()>#*-]{0,12}",
        1 => "\\PC{0,12}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    let ends = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (any::<bool>(), prop::collection::vec((line(), ends), 0..24)).prop_map(|(mark, lines)| {
        let mut text = String::from(if mark { "\u{FEFF}" } else { "" });
        for (line, end) in lines {
            text.push_str(&line);
            text.push_str(end);
        }
        text
    })
}

proptest! {
    #[test]
    fn ticking_changes_exactly_one_byte_and_nothing_else(text in text()) {
        let before = parse(&text);
        let keys: BTreeSet<&String> = before.items.iter().map(|i| &i.key).collect();
        prop_assert_eq!(keys.len(), before.items.len(), "keys are unique");
        for (at, item) in before.items.iter().enumerate() {
            prop_assert!(item.box_offset < text.len());
            let ticked = tick(&text, &item.key).unwrap();
            let changed: Vec<usize> = text
                .bytes()
                .zip(ticked.bytes())
                .enumerate()
                .filter(|(_, (a, b))| a != b)
                .map(|(offset, _)| offset)
                .collect();
            prop_assert_eq!(ticked.len(), text.len());
            if item.checked {
                prop_assert!(changed.is_empty());
                continue;
            }
            prop_assert_eq!(changed, vec![item.box_offset]);
            let after = parse(&ticked);
            prop_assert!(after.items[at].checked);
            prop_assert_eq!(after.items.len(), before.items.len());
            for (was, is) in before.items.iter().zip(&after.items) {
                prop_assert_eq!(&was.key, &is.key);
                prop_assert_eq!(&was.text, &is.text);
            }
        }
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in "\\PC*") {
        parse(&text);
    }
}

#[test]
fn a_list_in_the_middle_of_a_merge_is_not_read() {
    let text = "# Worker\n\n<<<<<<< HEAD\n- [ ] one\n=======\n- [x] one\n>>>>>>> 0123abc\n";
    let list = parse(text);
    assert!(list.unread && list.items.is_empty());
    assert!(list.reason.unwrap().contains("conflict in line 3"));
    // A word about conflicts is none, and neither is a heading that is underlined.
    let text = "Title\n=======\n\n- [ ] explain what `<<<<<<< ` means\n";
    assert_eq!(parse(text).items.len(), 1);
}
