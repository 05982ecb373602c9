// SPDX-License-Identifier: MIT OR Apache-2.0

//! The module's statistics in debugfs, parsed.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// The directory of the module's files, if debugfs is mounted.
pub const DIR: &str = "/sys/kernel/debug/freelist";

fn read(name: &str) -> io::Result<String> {
    let path = Path::new(DIR).join(name);
    fs::read_to_string(&path).map_err(|error| explained(&path, error))
}

/// Adds the file's name and advice to an error.
fn explained(path: &Path, error: io::Error) -> io::Error {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            "; is debugfs mounted, the module loaded, the arena open? See `freelistctl doctor`"
        }
        io::ErrorKind::PermissionDenied => "; only root may use it: run it with sudo",
        _ => "",
    };
    io::Error::new(error.kind(), format!("{}: {error}{advice}", path.display()))
}

/// The file `stats`: a name and a value on each line, in the file's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats(pub Vec<(String, u64)>);

impl Stats {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Those of reading it, or `InvalidData` with the line that is not a pair.
    pub fn read() -> io::Result<Self> {
        Self::parse(&read("stats")?)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the line that is not a pair.
    pub fn parse(text: &str) -> io::Result<Self> {
        let pair = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        };
        text.lines()
            .map(|line| pair(line).ok_or_else(|| invalid("stats", line)))
            .collect::<io::Result<_>>()
            .map(Self)
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }
}

/// The file `classes`: a header with the columns' names, and a row for each size class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// A row for each size class, with a value for each column.
    pub rows: Vec<Vec<u64>>,
}

impl Classes {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Those of reading it, or `InvalidData` with the line that does not fit the header.
    pub fn read() -> io::Result<Self> {
        Self::parse(&read("classes")?)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the line that does not fit the header.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().ok_or_else(|| invalid("classes", ""))?;
        let columns: Vec<String> = header.split_whitespace().map(str::to_owned).collect();
        let row = |line: &str| {
            let row: Vec<u64> = line
                .split_whitespace()
                .map(|value| value.parse().ok())
                .collect::<Option<_>>()?;
            (row.len() == columns.len()).then_some(row)
        };
        let rows = lines
            .map(|line| row(line).ok_or_else(|| invalid("classes", line)))
            .collect::<io::Result<_>>()?;
        Ok(Self { columns, rows })
    }

    /// Returns all values of the column `name`, by size class.
    pub fn column(&self, name: &str) -> Option<impl Iterator<Item = u64> + '_> {
        let column = self.columns.iter().position(|column| column == name)?;
        Some(self.rows.iter().map(move |row| row[column]))
    }

    /// Returns the value in column `name` of the size class of `size` bytes.
    pub fn get(&self, size: u64, name: &str) -> Option<u64> {
        let row = self.column("size")?.position(|row| row == size)?;
        self.column(name)?.nth(row)
    }
}

/// A row of the file `arenas`. Sizes are in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArenaRow {
    /// The arena's number, which no other arena ever had.
    pub id: u64,
    /// The process that opened it.
    pub pid: u64,
    /// The bytes of live blocks.
    pub live: u64,
    /// The bytes of free blocks.
    pub free: u64,
    /// The bytes of all its pages.
    pub held: u64,
    /// The most bytes of pages that it may hold.
    pub limit: u64,
    /// The number of requests that wait.
    pub waiters: u64,
    /// The process's name; bytes that are not printable ASCII are written as `\x0a`.
    pub name: String,
}

/// The file `arenas`: a header with the columns' names, and a row for each arena.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arenas(pub Vec<ArenaRow>);

impl Arenas {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Those of reading it, or `InvalidData` with the line that does not fit the header.
    pub fn read() -> io::Result<Self> {
        Self::parse(&read("arenas")?)
    }

    /// Parses the file's text. Skips unknown columns; missing columns are 0.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the line that does not fit the header.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().ok_or_else(|| invalid("arenas", ""))?;
        let columns: Vec<&str> = header.split_whitespace().collect();
        let row = |line: &str| {
            let mut rest = line;
            let mut row = ArenaRow::default();
            for column in &columns {
                rest = rest.trim_start();
                // It is the last column, and may have blanks.
                if *column == "name" {
                    row.name = rest.to_owned();
                    return Some(row);
                }
                let (value, after) = rest.split_once(' ').unwrap_or((rest, ""));
                let value: u64 = value.parse().ok()?;
                rest = after;
                match *column {
                    "id" => row.id = value,
                    "pid" => row.pid = value,
                    "live" => row.live = value,
                    "free" => row.free = value,
                    "held" => row.held = value,
                    "limit" => row.limit = value,
                    "waiters" => row.waiters = value,
                    _ => {}
                }
            }
            Some(row)
        };
        lines
            .map(|line| row(line).ok_or_else(|| invalid("arenas", line)))
            .collect::<io::Result<_>>()
            .map(Self)
    }
}

/// The column `content` of a map: the state of a range of an arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// A live block.
    Live,
    /// Free pages with memory.
    Free,
    /// Address space without memory.
    Unbacked,
    /// A reservation that is not live yet, or memory that is being reclaimed.
    Pending,
    /// A page that is divided into smaller blocks.
    Subpage,
}

/// A row of an arena's map: neighbouring pages of the same content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Its offset in the arena, in bytes.
    pub offset: u64,
    /// The number of pages.
    pub pages: u64,
    /// The bytes of live blocks in it.
    pub live: u64,
    /// The bytes of free blocks in it.
    pub free: u64,
    /// The least and the largest order, in pages, of the folios that are its memory; `None` if it has no
    /// memory.
    pub orders: Option<(u32, u32)>,
    /// The state of its pages.
    pub content: Content,
}

/// The file `arenas.d/ID/map`: all of an arena, without gaps, up to the highest offset that a block ever
/// had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Map(pub Vec<Extent>);

impl Map {
    /// Reads the map of arena `id`.
    ///
    /// # Errors
    ///
    /// Those of reading the file, or `InvalidData` with the line that is not a row.
    pub fn read(id: u64) -> io::Result<Self> {
        Self::parse(&map(id)?)
    }

    /// Parses the file's text.
    ///
    /// # Errors
    ///
    /// `InvalidData` with the line that is not a row.
    pub fn parse(text: &str) -> io::Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().ok_or_else(|| invalid("map", ""))?;
        let columns: Vec<&str> = header.split_whitespace().collect();
        let rows = lines.map(|line| extent(&columns, line).ok_or_else(|| invalid("map", line)));
        rows.collect::<io::Result<_>>().map(Self)
    }
}

/// Parses a row of a map with these columns.
fn extent(columns: &[&str], line: &str) -> Option<Extent> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let cell = |name: &str| {
        let at = columns.iter().position(|column| *column == name)?;
        cells.get(at).copied()
    };
    let orders = match cell("orders")? {
        "-" => None,
        orders => {
            let (least, largest) = orders.split_once('-')?;
            Some((least.parse().ok()?, largest.parse().ok()?))
        }
    };
    Some(Extent {
        offset: u64::from_str_radix(cell("offset")?.strip_prefix("0x")?, 16).ok()?,
        pages: cell("pages")?.parse().ok()?,
        live: cell("live")?.parse().ok()?,
        free: cell("free")?.parse().ok()?,
        orders,
        content: match cell("content")? {
            "live" => Content::Live,
            "free" => Content::Free,
            "unbacked" => Content::Unbacked,
            "pending" => Content::Pending,
            "subpage" => Content::Subpage,
            _ => return None,
        },
    })
}

/// Reads the file `arenas.d/ID/map`: a header, and a row for each extent.
///
/// # Errors
///
/// Those of reading it.
pub fn map(id: u64) -> io::Result<String> {
    read(&format!("arenas.d/{id}/map"))
}

/// Has an arena of any process release its free pages until it holds at most `keep` bytes of them
/// (`arenas.d/ID/trim`).
///
/// # Errors
///
/// Those of writing the file.
pub fn trim(id: u64, keep: u64) -> io::Result<()> {
    let path = Path::new(DIR).join(format!("arenas.d/{id}/trim"));
    fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(keep.to_string().as_bytes()))
        .map_err(|error| explained(&path, error))
}

fn invalid(file: &str, line: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{DIR}/{file}: cannot read the line {line:?}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stats_are_pairs_in_order() {
        let stats = Stats::parse("arenas 1\nlive_blocks    20\n").unwrap();
        assert_eq!(stats.get("live_blocks"), Some(20));
        assert_eq!(stats.get("live"), None);
        assert_eq!(stats.0[0], ("arenas".to_owned(), 1));
        let error = Stats::parse("arenas 1\nlive_blocks\n").unwrap_err();
        assert!(error.to_string().contains("live_blocks"));
    }

    #[test]
    fn classes_are_found_by_column_name() {
        let classes = Classes::parse("shift size  live free\n5 32 1 2\n6 64 3 4\n").unwrap();
        assert_eq!(classes.get(64, "live"), Some(3));
        assert_eq!(classes.get(128, "live"), None);
        assert_eq!(classes.get(64, "held"), None);
        assert_eq!(classes.column("free").map(Iterator::sum::<u64>), Some(6));
    }

    #[test]
    fn arenas_are_rows_with_a_name_at_the_end() {
        let text = "id pid live later free held limit name\n\
                    \x20 7 1234 1 99 2 3 4 a name with blanks\n";
        let expected = ArenaRow {
            id: 7,
            pid: 1234,
            live: 1,
            free: 2,
            held: 3,
            limit: 4,
            waiters: 0,
            name: "a name with blanks".to_owned(),
        };
        assert_eq!(Arenas::parse(text).unwrap().0, [expected]);
        assert!(Arenas::parse("id pid name\n7 x sh\n").is_err());
        assert!(Arenas::parse("").is_err());
    }

    #[test]
    fn a_map_is_rows_of_extents() {
        let text = "        offset     pages shift         live         free orders content\n\
                    \x20          0x0         3    14        12288            0   0-1  live\n\
                    \x20       0x3000         1    11           64         4032   0-0  subpage\n\
                    \x20       0x4000       512    21            0            0      - unbacked\n";
        let map = Map::parse(text).unwrap().0;
        let first = Extent {
            offset: 0,
            pages: 3,
            live: 12288,
            free: 0,
            orders: Some((0, 1)),
            content: Content::Live,
        };
        assert_eq!(map[0], first);
        assert_eq!((map[1].content, map[1].free), (Content::Subpage, 4032));
        assert_eq!((map[2].offset, map[2].orders), (0x4000, None));
        assert_eq!(map.len(), 3);
        for wrong in [
            text.replace("0x3000", "3000"),
            text.replace("subpage", "lost"),
        ] {
            let error = Map::parse(&wrong).unwrap_err().to_string();
            assert!(error.contains("11           64"), "{error}");
        }
    }

    #[test]
    fn a_row_that_does_not_fit_the_header_is_named() {
        let error = Classes::parse("size live\n32 1 7\n").unwrap_err();
        assert!(error.to_string().contains("32 1 7"));
    }
}
