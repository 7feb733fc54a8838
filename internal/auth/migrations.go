package auth

import "embed"

// Migrations holds the service's schema, one statement per file, forward only.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Where the migrations are in Migrations and where their state is kept.
const (
	MigrationsDir = "migrations"
	VersionTable  = "auth_schema_versions"
)
