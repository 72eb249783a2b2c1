//! Columns as docker prints them.

/// Go's tabwriter as docker sets it up: at least 10 wide, 3 spaces between columns.
const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lines of aligned cells, each ended; the last cell of a line isn't padded.
pub(crate) fn table(headings: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let lines: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
        (longest.unwrap_or(0) + PADDING).max(MIN_WIDTH)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: &Vec<String>| {
        let last = cells.len().saturating_sub(1);
        let pad = |(column, cell): (usize, &String)| match column == last {
            true => printable(cell),
            false => format!("{:<width$}", printable(cell), width = widths[column]),
        };
        cells.iter().enumerate().map(pad).collect::<String>() + "\n"
    };
    lines.iter().map(line).collect()
}

/// A name or a message with a line's end or an escape code in it must not redraw the terminal.
pub(crate) fn printable(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|cell| (*cell).to_owned()).collect()
    }

    /// As the stock CLI printed it.
    const SERVICE_LS: &str = "\
ID             NAME      MODE             REPLICAS              IMAGE            PORTS
d6ukpq9cfpfr   full      replicated       1/1                   redis:7          
aze2smalt00q   gjob      global job       0/3 (3/6 completed)   busybox:latest   
fv1t99zb1r2c   myweb     replicated       2/2                   nginx:latest     *:80->80/tcp
r12dzy796e4b   job1      replicated job   0/2 (2/2 completed)   busybox:latest   
";

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let rows = vec![
            words(&["d6ukpq9cfpfr", "full", "replicated", "1/1", "redis:7", ""]),
            words(&["aze2smalt00q", "gjob", "global job", "0/3 (3/6 completed)", "busybox:latest", ""]),
            words(&["fv1t99zb1r2c", "myweb", "replicated", "2/2", "nginx:latest", "*:80->80/tcp"]),
            words(&["r12dzy796e4b", "job1", "replicated job", "0/2 (2/2 completed)", "busybox:latest", ""]),
        ];
        let headings = words(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
        assert_eq!(table(headings, rows), SERVICE_LS);
        let empty = table(words(&["ID", "NAME", "CURRENT STATE", "PORTS"]), vec![]);
        assert_eq!(empty, "ID        NAME      CURRENT STATE   PORTS\n");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(table(words(&["A"]), vec![words(&["x\n\u{1b}[2Jy"])]), "A\nx  [2Jy\n");
    }
}
