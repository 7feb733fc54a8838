// Package migrations holds the schema of logic's database, oldest first.
// Forward only; one DDL statement per file, because MySQL commits each by itself.
package migrations

import "embed"

// FS holds the migration files at its root.
//
//go:embed *.sql
var FS embed.FS

// Table records which migrations are applied.
const Table = "logic_schema_version"
