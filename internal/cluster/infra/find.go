package infra

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// FindMySQL returns a database server of this machine: an installed one, else
// one unpacked from the distribution's packages without installing anything.
func FindMySQL(ctx context.Context, log *slog.Logger) (Program, error) {
	p, err := installedMySQL(ctx)
	if !errors.Is(err, errNotInstalled) {
		return p, err
	}
	root, err := fetchDebian(ctx, log)
	if err != nil {
		return Program{}, fmt.Errorf("no MariaDB or MySQL server: %w\n%s", err, wayOut)
	}
	return root.mariadb()
}

// FindRedis returns a Redis server of this machine in the same way.
func FindRedis(ctx context.Context, log *slog.Logger) (Program, error) {
	p, err := installedRedis()
	if !errors.Is(err, errNotInstalled) {
		return p, err
	}
	root, err := fetchDebian(ctx, log)
	if err != nil {
		return Program{}, fmt.Errorf("no Redis or Valkey server: %w\n%s", err, wayOut)
	}
	return root.redis()
}

const wayOut = `
Way out, one of:
  Debian, Ubuntu   apt-get install mariadb-server redis-server
  Fedora, RHEL     dnf install mariadb-server valkey
  Arch             pacman -S mariadb valkey
  Alpine           apk add mariadb mariadb-server-utils redis
  macOS            brew install mariadb redis
  servers you run  IM_MYSQL_DSN='user:password@tcp(host:3306)/' IM_REDIS_ADDR=host:6379
  Docker           make up-docker
The servers need not be running: private ones are started, your own stay untouched.
`
