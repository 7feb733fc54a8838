package rest

import (
	"bytes"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"im-services/internal/im"
	"im-services/internal/wire"
)

// A generated avatar is a pattern of 5 by 5 cells, mirrored, on a light ground.
const (
	avatarCells  = 5
	avatarCell   = 24 // pixels
	avatarMargin = 20 // pixels
	avatarSide   = avatarCells*avatarCell + 2*avatarMargin
)

// serveAvatar draws the avatar of a user. It is a function of the id alone, so
// that every gateway draws the same one and nothing is stored.
func (a *api) serveAvatar(w http.ResponseWriter, r *http.Request) {
	name, ok := strings.CutSuffix(chi.URLParam(r, "file"), ".png")
	n, isNumber := wire.ParseInt(name)
	id := im.UserID(n)
	if !ok || !isNumber || !id.Valid() {
		a.fail(w, r, im.E(im.KindNotFound, "file_not_found", nil))
		return
	}
	h := w.Header()
	h.Set("Content-Type", "image/png")
	h.Set("Cache-Control", "public, max-age=604800")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("ETag", fmt.Sprintf(`"i1-%d"`, id))
	if r.Header.Get("If-None-Match") == h.Get("ETag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(drawAvatar(id)))
}

// drawAvatar returns a PNG.
func drawAvatar(id im.UserID) []byte {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(id.UID())) // never fails
	bits := sum.Sum64()

	img := image.NewPaletted(image.Rect(0, 0, avatarSide, avatarSide), color.Palette{
		color.RGBA{0xf3, 0xf4, 0xf6, 0xff}, hue(bits >> 48),
	})
	for y := range avatarCells {
		for x := range (avatarCells + 1) / 2 {
			if bits>>(y*3+x)&1 == 0 {
				continue
			}
			fillCell(img, x, y)
			fillCell(img, avatarCells-1-x, y)
		}
	}
	var buf bytes.Buffer
	_ = png.Encode(&buf, img) // writing to memory an image of legal size never fails
	return buf.Bytes()
}

func fillCell(img *image.Paletted, x, y int) {
	for dy := range avatarCell {
		for dx := range avatarCell {
			img.SetColorIndex(avatarMargin+x*avatarCell+dx, avatarMargin+y*avatarCell+dy, 1)
		}
	}
}

// hue picks a colour of middle brightness, readable on the light ground.
func hue(n uint64) color.RGBA {
	const low, high = 60, 190
	third := uint8(n % (high - low))
	switch n / (high - low) % 6 {
	case 0:
		return color.RGBA{high, low, low + third, 0xff}
	case 1:
		return color.RGBA{high, low + third, low, 0xff}
	case 2:
		return color.RGBA{low, high, low + third, 0xff}
	case 3:
		return color.RGBA{low + third, high, low, 0xff}
	case 4:
		return color.RGBA{low, low + third, high, 0xff}
	default:
		return color.RGBA{low + third, low, high, 0xff}
	}
}
