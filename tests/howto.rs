//! The how-tos in `docs/howto/`, and other pages with commands, carried out: every command of a page is run in its order,
//! and has to print what the page shows. With `HOWTO_UPDATE=1` the pages are rewritten with what was printed; read what changed.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

mod howto {
    mod cluster;
    mod output;
    mod page;
    mod pages;
    mod stage;
}
