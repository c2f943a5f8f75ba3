//! `isobench container …`: containers by hand, with docker's words.

mod options;
