package friend

import "embed"

// Migrations holds the service's schema, one DDL statement per file, forward only.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Where the migrations are in Migrations and where their state is kept.
const (
	MigrationsDir = "migrations"
	VersionTable  = "friend_schema_versions"
)
