// Package migrations holds the schema of logic's database, oldest first.
// Forward only; one DDL statement per file, because MySQL commits each by itself. A
// server that dies between a statement and its note in Table meets it again: so each
// bears being repeated, as far as MySQL has words for it (MariaDB has more).
package migrations

import "embed"

// FS holds the migration files at its root.
//
//go:embed *.sql
var FS embed.FS

// Table records which migrations are applied.
const Table = "logic_schema_version"
