//! Tables for people. Every cell is made inert here, so that no other file has to think of it.

use comfy_table::{Attribute, Cell, Color, ColumnConstraint, ContentArrangement, Table};

use crate::screen::{Screen, Tone, inert};

/// A text of a cell with its tone, made inert: a newline in it can't make a line of its own.
fn cell(screen: &Screen, text: &str, tone: Tone) -> Cell {
    toned(screen, Cell::new(inert(text)), tone)
}

fn toned(screen: &Screen, cell: Cell, tone: Tone) -> Cell {
    match tone {
        _ if !screen.colour => cell,
        Tone::Plain => cell,
        Tone::Strong => cell.add_attribute(Attribute::Bold),
        Tone::Faint => cell.add_attribute(Attribute::Dim),
        Tone::Good => cell.fg(Color::Green),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// A list: a line of headers, and a row for each thing. Columns named in `whole`, such as ids and times, are never broken;
/// texts in the others are, but only on a terminal with room for them: on a narrow one whole rows are easier to read.
pub(crate) struct List<'a> {
    screen: &'a Screen,
    table: Table,
    whole: &'a [usize],
}

/// A column of texts narrower than this is no help.
const LEAST_TEXT: u16 = 24;
/// Space between columns.
const GAP: u16 = 2;

impl<'a> List<'a> {
    pub(crate) fn new(screen: &'a Screen, headers: &[&str], whole: &'a [usize]) -> List<'a> {
        let mut table = bare_table();
        table.set_header(headers.iter().map(|h| cell(screen, h, Tone::Faint)));
        List { screen, table, whole }
    }

    pub(crate) fn row(&mut self, cells: &[(&str, Tone)]) {
        self.table.add_row(cells.iter().map(|(text, tone)| cell(self.screen, text, *tone)));
    }

    pub(crate) fn print(mut self) -> std::io::Result<()> {
        if self.table.width().is_some_and(|width| self.needed_width() <= width) {
            self.table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        for column in self.whole {
            let column =
                self.table.column_mut(*column).expect("a list has the columns that it names");
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        print_bare(self.screen, &mut self.table)
    }

    fn needed_width(&self) -> u16 {
        let widths = self.table.column_max_content_widths();
        let least = |(column, width): (usize, &u16)| match self.whole.contains(&column) {
            true => width + GAP,
            false => LEAST_TEXT.min(*width) + GAP,
        };
        widths.iter().enumerate().map(least).fold(0, u16::saturating_add)
    }
}

/// Facts about one thing: a name and a text on each line. Empty texts are left out. Nothing is broken to fit the terminal,
/// so that a token can be copied.
pub(crate) struct Facts<'a> {
    screen: &'a Screen,
    table: Table,
}

impl<'a> Facts<'a> {
    pub(crate) fn new(screen: &'a Screen) -> Facts<'a> {
        Facts { screen, table: bare_table() }
    }

    pub(crate) fn add(&mut self, name: &str, text: &str) {
        self.add_in(name, text, Tone::Plain);
    }

    pub(crate) fn add_in(&mut self, name: &str, text: &str, tone: Tone) {
        if !text.is_empty() {
            self.table
                .add_row([cell(self.screen, name, Tone::Faint), cell(self.screen, text, tone)]);
        }
    }

    /// Several texts under one name, a line for each.
    pub(crate) fn add_lines(&mut self, name: &str, texts: impl IntoIterator<Item = String>) {
        let lines: Vec<String> = texts.into_iter().map(|text| inert(&text)).collect();
        if !lines.is_empty() {
            let cells = [cell(self.screen, name, Tone::Faint), Cell::new(lines.join("\n"))];
            self.table.add_row(cells);
        }
    }

    pub(crate) fn print(mut self) -> std::io::Result<()> {
        print_bare(self.screen, &mut self.table)
    }
}

/// No lines: a table that can be read, copied and cut with other tools.
fn bare_table() -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table
}

fn print_bare(screen: &Screen, table: &mut Table) -> std::io::Result<()> {
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_string()).collect();
    lines.iter().try_for_each(|line| screen.line(line))
}
