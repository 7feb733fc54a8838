package auth

import (
	"testing"

	"im-services/internal/testkit"
)

func TestMigrations_BearBeingRepeated(t *testing.T) {
	testkit.RepeatMigrations(t, Migrations, MigrationsDir, VersionTable)
}
