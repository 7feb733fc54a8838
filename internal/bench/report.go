package bench

func (d *Document) WriteHTML(file string) error { return nil }
